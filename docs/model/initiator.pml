/* The way of one id: two replicas, one request, the nodes' stream, and every crash and freeze.
 *
 * A replica's step is read, decide, act; each is a step of its own here, so anything may come between two of them: a
 * freeze is nothing but another's steps coming first. A crash takes a replica back to the start and forgets what it
 * knew. Any replica may hold the request as long as it is not acked, also beside another that still works on it: a
 * redelivery while the holder is frozen.
 *
 * Each guard can be taken out by a macro; see README.md for what happens then.
 */

#ifndef CRASHES
#define CRASHES 2
#endif

mtype = { NONE, ACCEPTED, SIGNED, PUBLISHING, PUBLISHED, FAILED_NONE, FAILED_UNKNOWN, COMPLETED };

/* the record: its last event, and the sequence that guards the next one */
mtype record = NONE;
byte sequence = 0;
bool failed = false;    /* a `failed` was recorded */
bool said_none = false; /* with outcome `none` */

/* the nodes' stream for this attempt's subject, and what the nodes saw */
bool stored = false;
bool forgotten = false; /* the stream's limits have dropped something since `signed` */
byte published = 0;
byte between = 0;       /* replicas between their look and their publication */

bool acked = false;
bool rejected = false;
bool expired = false;
byte crashes = 0;

#define IS_FINAL(state) (state == FAILED_NONE || state == FAILED_UNKNOWN || state == COMPLETED)

/* what must hold at every write of the record */
inline write(state) {
    assert(record != COMPLETED);                            /* nothing follows `completed` */
    assert(!failed || state == COMPLETED);                  /* only a success follows `failed` */
    assert(state != FAILED_NONE || published == 0);         /* `none` is true */
    assert(!(state == ACCEPTED && record != NONE));         /* claimed once */
    record = state;
    sequence++;
    if
    :: state == FAILED_NONE -> failed = true; said_none = true
    :: state == FAILED_UNKNOWN -> failed = true
    :: else
    fi
}

/* compare and set: whoever loses reads what won */
inline move(state) {
    atomic {
        if
#ifdef NO_COMPARE_AND_SET
        :: true ->
#else
        :: seen == sequence ->
#endif
            write(state); last = state; seen = sequence; won = true
        :: else -> last = record; seen = sequence; won = false
        fi
    }
}

inline look_at_record() {
    atomic { last = record; seen = sequence }
}

/* what must hold at every publication */
inline reaches_the_nodes() {
    assert(record != NONE && record != ACCEPTED); /* only recorded bytes */
    assert(!said_none);                           /* after outcome `none` nothing can follow */
    assert(!rejected);                            /* what was refused never gets there */
    published++;
    assert(published <= 1)                        /* at most once in an attempt */
}

inline may_crash() {
    if
    :: skip
    :: crashes < CRASHES -> crashes++; goto idle
    fi
}

/* the server refuses a second message on the attempt's own subject */
inline publish() {
    atomic {
        between--;
        if
#ifndef NO_FENCE
        :: stored -> skip
        :: else ->
#else
        :: true ->
#endif
            stored = true; reaches_the_nodes()
        fi
    }
}

active [2] proctype Replica() {
    mtype last;
    byte seen;
    bool fresh, won;

idle:
    do
    :: atomic { acked -> goto done }
    :: atomic { !acked -> look_at_record(); fresh = false; goto work }
    od;

work:
    if
    :: IS_FINAL(last) -> goto settle

#ifdef ACK_EARLY
    :: !IS_FINAL(last) -> goto settle
#endif

    :: last == NONE && expired -> goto refuse
    :: last == NONE && !expired ->
        may_crash();
        move(ACCEPTED)

    :: last == ACCEPTED && expired ->
        may_crash();
        move(FAILED_NONE)
    :: last == ACCEPTED ->
        may_crash(); /* KMS is asked */
#ifdef PUBLISH_BEFORE_RECORD
        between++;
        publish();
#endif
        may_crash();
        if
        :: expired -> move(FAILED_NONE) /* this signature never leaves us */
        :: !expired -> move(SIGNED); fresh = won
        fi

    /* from here on complete bytes are recorded: the point of no return */
#ifdef RESHARE
    :: last == SIGNED ->
        may_crash();
#ifndef SEND_BEFORE_RECORD
        move(PUBLISHING);
        if
        :: won -> skip
        :: !won -> goto work
        fi;
        may_crash();
#endif
        atomic { reaches_the_nodes() };
        may_crash();
        move(PUBLISHED)
#else
    :: last == SIGNED && expired ->
        may_crash();
#ifdef NONE_AFTER_SIGNED
        move(FAILED_NONE)
#else
        move(FAILED_UNKNOWN)
#endif
    :: last == SIGNED -> goto look
#endif

    /* at the nodes, perhaps: wait for the record to move, or for our own limit */
    :: last == PUBLISHED || last == PUBLISHING ->
        if
        :: sequence != seen -> look_at_record()
        :: expired -> may_crash(); move(FAILED_UNKNOWN)
        fi
    fi;
    goto work;

refuse:
#ifdef NO_LOOK_BEFORE_REFUSAL
    may_crash();
    atomic { rejected = true; acked = true; assert(record == NONE) };
    goto done;
#else
    /* look and refuse: past the deadline by everybody's clock nobody begins a claim any more */
    atomic {
        look_at_record();
        if
        :: last == NONE -> rejected = true; acked = true; goto done
        :: else -> goto work
        fi
    };
#endif

look:
    atomic {
        if
        :: fresh && !forgotten -> between++; fresh = false; goto send /* recorded by itself, moments ago */
        :: stored -> goto found
#ifdef NO_RETENTION_CHECK
        :: !stored && !fresh -> between++; goto send
        :: fresh && forgotten -> fresh = false; goto look
#else
        :: !stored && forgotten -> goto lost
        :: !stored && !forgotten && !fresh -> between++; goto send
#endif
        fi
    };
send:
    if
    :: skip
    :: atomic { crashes < CRASHES -> crashes++; between--; goto idle }
    fi;
    publish();
    may_crash();
found:
    move(PUBLISHED);
    goto work;
lost:
    may_crash();
    move(FAILED_UNKNOWN);
    goto work;

settle:
    may_crash();
    atomic { assert(IS_FINAL(record) || rejected); acked = true };
done:
    skip
}

/* The nodes answer what they saw, perhaps twice and contradictorily; whoever settles an answer may crash. */
active proctype Results() {
    mtype last;
    byte seen;
    bool won, success = false, error = false;

idle:
    do
    :: atomic { published > 0 && !success -> success = true; look_at_record(); goto succeeded }
    :: atomic { published > 0 && !error -> error = true; look_at_record(); goto erred }
    :: atomic { published == 0 && acked -> goto done } /* nothing was asked of the nodes, and nothing will be */
    :: atomic { published > 0 -> goto done }           /* no more answers */
    od;

succeeded:
    if
    :: last == COMPLETED -> goto idle
    :: last != COMPLETED && crashes < CRASHES -> atomic { crashes++; look_at_record() } /* it is delivered again */
    :: last != COMPLETED ->
        move(COMPLETED)
    fi;
    goto succeeded;

erred:
    if
    :: IS_FINAL(last) -> goto idle
    :: last == SIGNED || last == ACCEPTED || last == NONE -> /* its publication is not recorded yet: later */
        if
        :: sequence != seen -> look_at_record()
        fi
    :: last == PUBLISHED || last == PUBLISHING -> move(FAILED_UNKNOWN)
    fi;
    goto erred;

done:
    skip
}

active proctype Time() {
    expired = true
}

/* The nodes' stream drops old messages by its limits.
 *
 * Not while a replica is between its look and its publication: to freeze there for as long as the stream keeps its
 * messages is to lose the connection first (NO_LIVENESS shows what that assumption is for).
 */
active proctype Retention() {
    do
#ifdef NO_LIVENESS
    :: atomic { stored -> stored = false; forgotten = true; break }
#else
    :: atomic { stored && between == 0 -> stored = false; forgotten = true; break }
#endif
    :: break
    od
}
