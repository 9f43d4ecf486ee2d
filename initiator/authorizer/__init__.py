"""The authorizers' side: who must sign, too, before the nodes are asked; a service by rules, or a person."""
