"""Settings from their sources: defaults, then one YAML file, then the environment, then the command line.

Invariants: an unknown key is refused wherever it stands, with the nearest known one; all errors are told at once;
secrets come from the environment or from files that a `*_file` key names, never from the YAML file.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, SecretStr, ValidationError

from initiator.config.schema import Settings
from initiator.config.section import shown
from initiator.errors import Code, HaltError

PREFIX = "INITIATOR_"
S = TypeVar("S", bound=BaseModel)
_FOREIGN = ("INITIATOR_CONFIG", "INITIATOR_CLIENT_", "INITIATOR_TEST_")
MAX_FILE_BYTES = 1_048_576
_HINT = "`initiator config example` shows every key"


@dataclass(frozen=True, slots=True)
class Loaded:
    """Effective settings, and where each dotted key came from (keys without an entry are defaults)."""

    settings: Settings
    sources: Mapping[str, str]


class _StrictLoader(yaml.SafeLoader):
    """YAML without duplicate keys, odd keys and aliases (which would allow a billion-laughs file)."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.events.AliasEvent):
            event = self.peek_event()  # type: ignore[no-untyped-call]
            raise yaml.MarkedYAMLError(problem="aliases are not allowed", problem_mark=event.start_mark)
        return super().compose_node(parent, index)

    def construct_scalar(self, node: Any) -> Any:
        value = super().construct_scalar(node)
        if not isinstance(value, str) or value.isascii():
            return value
        try:  # JSON writes one character as two escapes, and YAML's reader leaves them two
            return value.encode("utf-16", "surrogatepass").decode("utf-16")
        except UnicodeDecodeError:
            raise yaml.MarkedYAMLError(problem="half a character", problem_mark=node.start_mark) from None

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                raise yaml.MarkedYAMLError(problem=f"key {key!r} is no string", problem_mark=key_node.start_mark)
            if key in seen:
                raise yaml.MarkedYAMLError(
                    problem=f"key {shown(key)!r} stands there twice", problem_mark=key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


def load_settings(
    path: str | None = None,
    overrides: Mapping[str, str] | None = None,
    environ: Mapping[str, str] | None = None,
) -> Loaded:
    """The effective settings.

    Args:
        path: YAML file; without it `INITIATOR_CONFIG` names one, or there is none.
        overrides: dotted key to value, as `--set` takes them.
        environ: `INITIATOR_SECTION__KEY` to value; default: the process's environment.

    Raises:
        HaltError: `CONFIG_INVALID`, with every error and where it stands.
    """
    environ = os.environ if environ is None else environ
    path = path or environ.get("INITIATOR_CONFIG")
    problems: list[str] = []
    merged: dict[str, Any] = {}
    sources: dict[str, str] = {}
    if path:
        _merge(merged, read_file(path), sources, path, problems, "", secrets_allowed=False)
    for name, value in sorted(environ.items()):
        if name.startswith(PREFIX) and not name.startswith(_FOREIGN):
            key = name.removeprefix(PREFIX).lower().replace("__", ".")
            _merge(merged, _nest(key, value), sources, f"env {name}", problems, "", secrets_allowed=True)
    for key, value in (overrides or {}).items():
        _merge(merged, _nest(key, value), sources, "--set", problems, "", secrets_allowed=False)
    settings = _validate(merged, sources, problems)
    if problems or settings is None:
        raise HaltError(Code.CONFIG_INVALID, "; ".join(problems), field="config", hint=_HINT)
    return Loaded(settings, sources)


def read_file(path: str) -> dict[str, Any]:
    """The map in a YAML file; raises HaltError."""
    try:
        raw = Path(path).read_bytes()
        content = parse_yaml(raw) if len(raw) <= MAX_FILE_BYTES else f"larger than {MAX_FILE_BYTES} bytes"
    except OSError as error:
        content = str(error.strerror)
    if isinstance(content, str):
        raise HaltError(Code.CONFIG_INVALID, f"{path}: {content}", field="config", hint=_HINT)
    return content


def parse_yaml(raw: bytes) -> dict[str, Any] | str:
    """The map in a YAML file, or what is wrong with it."""
    try:
        content = yaml.load(raw, Loader=_StrictLoader)  # noqa: S506 - a SafeLoader
    except Exception as error:  # PyYAML's constructors trip over odd tags with errors of any kind
        return _yaml_problem(error)
    if content is None:
        return {}
    return content if isinstance(content, dict) else "expected a map at the top"


def _yaml_problem(error: Exception) -> str:
    """What is wrong and where, without quoting the file (it may hold a secret in the wrong place)."""
    mark = getattr(error, "problem_mark", None)
    where = f" at line {mark.line + 1}" if mark else ""
    return f"{getattr(error, 'problem', None) or type(error).__name__}{where}"


def _nest(dotted: str, text: str) -> dict[str, Any]:
    *sections, last = dotted.split(".")
    try:
        value = yaml.load(text, Loader=_StrictLoader)  # noqa: S506 - a SafeLoader
    except Exception:  # as above; then it is the text itself
        value = text
    # a password that looks like a number stays the text that it is
    value = text if _is_text(dotted) else value
    nested: dict[str, Any] = {last: value}
    for section in reversed(sections):
        nested = {section: nested}
    return nested


def _is_text(dotted: str) -> bool:
    annotation = fields().get(dotted)
    return annotation is not None and any(kind in (str, SecretStr) for kind in _kinds(annotation))


def _kinds(annotation: Any) -> Iterator[Any]:
    """The types of a union, an optional or an annotated type."""
    if annotation in (str, SecretStr):
        yield annotation
    elif not (isinstance(annotation, type) and issubclass(annotation, BaseModel)) and not _is_container(annotation):
        for argument in get_args(annotation):
            yield from _kinds(argument)


def _is_container(annotation: Any) -> bool:
    return getattr(annotation, "__origin__", None) in (tuple, dict, list)


def section_of(annotation: Any) -> type[BaseModel] | None:
    """The section that a field holds, also behind an optional."""
    for kind in (annotation, *get_args(annotation)):
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            return kind
    return None


def fields(model: type[BaseModel] = Settings, prefix: str = "") -> dict[str, Any]:
    """Every dotted key and its type; `clients.*` stands for any client, `….*` for any item of a list of sections."""
    found: dict[str, Any] = {}
    for name, info in model.model_fields.items():
        annotation = info.annotation
        section = section_of(annotation)
        if _is_container(annotation):
            found[f"{prefix}{name}"] = annotation
            if section is not None:
                found |= fields(section, f"{prefix}{name}.*.")
        elif section is not None:
            found |= fields(section, f"{prefix}{name}.")
        else:
            found[f"{prefix}{name}"] = annotation
    return found


_SECTIONS = frozenset(key.rpartition(".")[0] for key in fields()) - {"mpcium.nats", "nats.tls", "mpcium.nats.tls", ""}


def _merge(
    into: dict[str, Any],
    more: Mapping[str, Any],
    sources: dict[str, str],
    source: str,
    problems: list[str],
    prefix: str,
    *,
    secrets_allowed: bool,
) -> None:
    """Lay one source over those before it, key by key."""
    for name, value in more.items():
        dotted = f"{prefix}{name}"
        if value is None and dotted in _SECTIONS:
            continue  # a section whose keys are all commented out
        if isinstance(value, dict):
            inner = into.setdefault(name, {})
            if isinstance(inner, dict):
                if not value:
                    sources.setdefault(dotted, source)
                _merge(inner, value, sources, source, problems, f"{dotted}.", secrets_allowed=secrets_allowed)
                continue
        annotation = fields().get(dotted)
        if annotation is not None and SecretStr in _kinds(annotation) and not secrets_allowed and value is not None:
            problems.append(f"{dotted} ({source}): secrets only from the environment or from {dotted}_file")
            continue
        into[name] = value
        sources[dotted] = source


def _validate(merged: dict[str, Any], sources: Mapping[str, str], problems: list[str]) -> Settings | None:
    try:
        return Settings.model_validate(merged)
    except ValidationError as error:
        for item in error.errors(include_url=False, include_context=False, include_input=True):
            problems.append(_problem(item, sources))
        return None


def _problem(item: Any, sources: Mapping[str, str]) -> str:
    parts = [str(part) for part in item["loc"] if part != "[key]"]
    dotted = ".".join(parts)
    source = next((text for key, text in sources.items() if f"{dotted}.".startswith(f"{key}.") or
                   key.startswith(f"{dotted}.")), "")  # fmt: skip
    where = f" ({source})" if source else ""
    if item["type"] == "extra_forbidden":
        nearest = difflib.get_close_matches(dotted, _known_at(parts), n=1, cutoff=0.5)
        return f"{shown(dotted)}{where}: no such key" + (f"; did you mean {nearest[0]}?" if nearest else "")
    message = plain_words(item["msg"])
    value = item.get("input")
    quotable = isinstance(value, (str, int, float, bool)) and not _secret(dotted)
    got = f", got {str(shown(value))[:64]!r}" if quotable else ""
    return f"{shown(dotted) or 'settings'}{where}: {message}{got}"


def section_from(
    model: type[S], fields_: Mapping[str, Any], field: str, *, hint: str | None = None, strict: bool | None = None
) -> S:
    """Fields as one section, for what is no part of the daemon's own settings.

    Args:
        strict: False: texts and lists of a caller's own are taken for what they mean.

    Raises:
        HaltError: `CONFIG_INVALID`, with every error.
    """
    try:
        return model.model_validate(fields_, strict=strict)
    except ValidationError as error:
        problems = [
            f"{'.'.join(str(part) for part in item['loc']) or 'options'}: {plain_words(item['msg'])}"
            for item in error.errors(include_url=False, include_context=False, include_input=False)
        ]
        raise HaltError(Code.CONFIG_INVALID, "; ".join(problems), field=field, hint=hint) from None


_WORDS = (
    (r"^(Input|String) should (be|match)", "expected"),
    (r"^expected pattern ", "expected text that matches "),
    (r"^(Tuple|List) should have", "expected"),
    (r" after validation, not \d+$", ""),
    (r"\btuple\b", "list"),
    (r"valid dictionary( or instance of \w+)?", "map"),
    (r"^expected an? valid ", "expected a "),
    (r"expected a integer", "expected an integer"),
)


def plain_words(message: str) -> str:
    """pydantic's message in the words of this house and of YAML."""
    message = message.removeprefix("Value error, ")
    for theirs, ours in _WORDS:
        message = re.sub(theirs, ours, message)
    return message[:1].lower() + message[1:]


def _known_at(parts: list[str]) -> list[str]:
    wildcard = ["*" if index == 1 and parts[0] == "clients" else part for index, part in enumerate(parts)]
    return [key for key in fields() if key.count(".") >= len(wildcard) - 1] + sorted(
        {k.split(".")[0] for k in fields()}
    )


def _secret(dotted: str) -> bool:
    annotation = fields().get(dotted)
    return annotation is not None and SecretStr in _kinds(annotation)


def read_secret(value: SecretStr | None, path: str | None) -> str | None:
    """A secret from its value or its file (one trailing newline is not part of it).

    Raises:
        HaltError: the file cannot be read.
    """
    if value is not None:
        return value.get_secret_value()
    if path is None:
        return None
    try:
        return Path(path).read_text("utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise HaltError(Code.CONFIG_INVALID, f"cannot be read: {type(error).__name__}", field=path) from error
