/* guest.pml: one command for one guest. The row is the call; sessions of two lives send it; the agent keeps a journal and a floor
 * and may die; frames stay on the way as long as they like; a cancel takes back what was never sent; a look raises the floor.
 *
 * Code: agent/machine.rs (Book::on_run, look), agents/session.rs (refill, dispatch), store/provisioning/agent.rs (mark_sent,
 * expire, finish), transition/end.rs (withdraw), jobs/machine.rs (withdraw, owned_awaiting).
 * Epochs here: 1 is that of the frames, 2 that of a later owner who looks (Agents::look).
 */
#ifndef ADEATHS
#define ADEATHS 1       /* of the agent */
#endif
#ifndef FRAMES
#define FRAMES 3        /* frames that may be sent, repeats included */
#endif
#ifndef LOOK
#define LOOK 1          /* 1: a later owner looks instead of waiting, and may end by "absent" */
#endif
/* Rules; a mutant turns one round. */
#ifndef MARKFIRST
#define MARKFIRST 1     /* "sent" is written before it is sent */
#endif
#ifndef JOURNAL
#define JOURNAL 1       /* "started" is on disk before the command starts */
#endif
#ifndef RERUN
#define RERUN 0         /* 1: started and interrupted is run again */
#endif
#ifndef FLOORED
#define FLOORED 1       /* a look raises the floor before it answers */
#endif
#ifndef EXPIRY
#define EXPIRY 1        /* the guest starts nothing after the expiry */
#endif
#ifndef ACKLATE
#define ACKLATE 1       /* a result may be forgotten only after its acknowledgement, which follows the commit */
#endif

mtype = { waiting, sent, expired };            /* the row */
mtype = { awaiting, complete, cancelled, unresolved };
mtype = { none, started, done, forgotten };    /* the guest's journal */
mtype row = waiting, st = awaiting, jr = none;
byte floor_, effects, adeaths, flying, made, results, acks, latestart; bool cancel, over, closed, looked, absent, busy;
byte gone;
#define ENDED (st!=awaiting)
/* After the expiry, the longest run and the margin: what began in time has ended. */
#define RUNOVER (!EXPIRY || !busy)

/* Two sessions, of two lives: the older may stand still with a frame in hand. */
proctype Session() {
  bool may;
  do
  :: ENDED -> break
  :: atomic { !ENDED && !over && made<FRAMES && (row==waiting || row==sent) -> made++ };
     if
     :: MARKFIRST -> d_step { if :: row==waiting || row==sent -> row=sent; may=true :: else -> may=false fi };
          if :: may -> flying++ :: else fi                                     /* a pause before this line */
     :: !MARKFIRST -> flying++; d_step { if :: row==waiting -> row=sent :: else fi }
     fi; may=false
  :: atomic { results>0 -> results--;                                          /* finish: evidence and row in one item, then ack */
       if :: !ENDED -> st=complete :: else fi; closed=true; acks=1 }
  od;
  gone++
}

proctype Agent() {
end_up: skip;
end_idle:
  do
  :: atomic { flying>0 -> flying-- }; goto frame
  :: atomic { acks>0 -> acks=0; if :: jr==done -> jr=forgotten :: else fi }
  :: atomic { LOOK && looked && !absent && floor_<2 && !ENDED -> if :: FLOORED -> floor_=2 :: else fi;
       if :: jr==none -> absent=true :: else -> looked=false fi }
  od;
frame: skip;
  if
  :: d_step { 1<floor_ -> skip }; goto end_idle                                /* a lower epoch: refused */
  :: d_step { 1>=floor_ && jr==done -> results++ }; goto end_idle              /* the stored result */
  :: d_step { 1>=floor_ && jr==forgotten -> skip }; goto end_idle              /* its folder's mark still says so */
  :: d_step { 1>=floor_ && jr==started && !RERUN -> skip }; goto end_idle      /* interrupted */
  :: atomic { 1>=floor_ && jr==none && EXPIRY && over -> goto end_idle }
  :: atomic { 1>=floor_ && ((jr==none && !(EXPIRY && over)) || (jr==started && RERUN)) -> busy=true; if :: floor_<1 -> floor_=1 :: else fi };
     if :: JOURNAL -> jr=started :: else fi;
     if :: atomic { adeaths<ADEATHS -> adeaths++; busy=false; goto end_idle } :: true fi;
     d_step { effects++; if :: ENDED -> latestart++ :: else fi };
     if :: atomic { adeaths<ADEATHS -> adeaths++; busy=false; goto end_idle } :: true fi;
     d_step { jr=done; results++; busy=false }; goto end_idle
  fi
}

/* The job: waits, and ends by the answer, by a cancel that took the command back, or when its time is over. */
proctype Job() {
  do
  :: ENDED -> break
  :: atomic { !ENDED && cancel && row==waiting -> row=expired; st=cancelled }   /* withdraw: never sent */
  :: atomic { !ENDED && over && row==waiting -> row=expired; st=cancelled }
  :: atomic { !ENDED && over && row==sent && RUNOVER -> st=unresolved }
  :: atomic { LOOK && !ENDED && cancel && row==sent && !looked -> looked=true }
  :: atomic { LOOK && !ENDED && looked && absent -> st=cancelled }              /* "absent" is final for older senders */
  od;
  gone++
}
proctype Person() { if :: atomic { !ENDED -> cancel=true } :: ENDED :: true fi }
proctype Time() { if :: atomic { !ENDED -> over=true } :: ENDED fi }
proctype Judge() {
  gone==3;
  flying==0;
  assert(effects<=1);
  assert(st!=complete || effects==1);
  assert(st!=cancelled || effects==0);
  assert(latestart==0)
}
init { atomic { run Session(); run Session(); run Agent(); run Job(); run Person(); run Time(); run Judge() } }
