/* create.pml: one job that creates one server, by the provider's class; two processes that crash, stand still and take over;
 * a cancel at any moment; the janitor.
 *
 * Code: jobs/machine.rs (plan, resolve_create, wait_out), jobs/drive/{create,resolve,undo}.rs, store/provisioning/transition/
 * {claim,call,end,wait}.rs, monitor/janitor/. One d_step or atomic block is one item of the database, or one look.
 * A process that stands still is one that does not move: every interleaving is a pause. One that was declared dead while it
 * stood still goes on with what it had in hand, and its writes are refused by the epoch.
 *
 * Time is one event: Q is over once everything sent before it began has landed or died and every server can be seen.
 * What is sent after it is what Q cannot know of: the request of a process that stood still before its call.
 */
#define K 0
#define S 1
#define T 2
#define N 3
#ifndef CLASS
#define CLASS K
#endif
#ifndef DEATHS
#define DEATHS 1        /* crashes, and declarations of death of a process that goes on */
#endif
#ifndef UNKNOWN
#define UNKNOWN 1       /* answers that never come */
#endif
#ifndef REFUSED
#define REFUSED 0       /* definite refusals worth another call */
#endif
#ifndef CANCEL
#define CANCEL 1
#endif
/* Rules; a mutant turns one round. */
#ifndef INTENT
#define INTENT 1        /* the attempt is written before the call */
#endif
#ifndef FENCE
#define FENCE 1         /* every write names the epoch */
#endif
#ifndef TOKEN
#define TOKEN 1         /* 1: token of uid, step, variant   2: of the epoch too */
#endif
#ifndef WAITQ
#define WAITQ 1         /* a look counts as "absent" only after Q, whatever was asked meanwhile */
#endif
#ifndef SIGNED
#define SIGNED 1        /* class S, when its call is signed: 1 before the attempt's last check  2 whenever it is sent */
#endif
#ifndef RESEND
#define RESEND 1        /* class K: an unwanted create is sent again too, so that its token is used up */
#endif
#ifndef OPENEND
#define OPENEND 0       /* 1: cancelled although an attempt is open */
#endif
#ifndef JANITOR
#define JANITOR 1
#endif
#ifndef JANOPEN
#define JANOPEN 0       /* 1: the janitor judges what belongs to an open job */
#endif
#ifndef JANOWN
#define JANOWN 1        /* 0: the janitor does not ask who owns it */
#endif
#ifndef STRICT
#define STRICT 1        /* never two servers, not even for a while; what ended cancelled has none from then on */
#endif
#define BOOTS (2+DEATHS)
#define REQS 5

mtype = { queued, running, awaiting, undoing, quarantined, complete, cancelled, unresolved };
mtype = { none, open, ok, void, refusedcall };
mtype = { leave, send, resend, look, quarantine, beginundo, undo, giveup, unknownend, park };

mtype st = queued, att = none;
byte epoch, owner, res, calls, ends;
bool cancel, quiet, over, owed;        /* quiet: the attempt's quiet_until is written; over: it has passed */
bool dead[BOOTS+1]; byte boots, deaths, unknowns, refusals, gone;

byte rst[6], rtok[6], rvm[6], rsig[6], sent;   /* 1 on its way  2 landed  3 refused  4 died */
bool alive[6], seen[6]; byte made, bytok[BOOTS+3], gen, living;
bool taking;

#define ENDED (st==complete || st==cancelled || st==unresolved)
#define MINE (!FENCE || (epoch==e && owner==b))
#define DUE (st==queued || (st==awaiting && cancel) || (st==quarantined && over))
/* Dies here: what it knew is lost, its boot is declared dead, it comes back as another life. */
#define DIE if :: atomic { deaths<DEATHS -> deaths++; dead[b]=true; goto life } :: true fi

inline find(v) {                       /* find_by_tag: one that lives and can be seen */
  v=0; i=1; do :: i<=made && v==0 -> if :: alive[i] && seen[i] -> v=i :: else fi; i++ :: else -> break od; i=0 }
inline dispatch(k) {                   /* the call leaves */
  sent++; k=sent; assert(sent<=REQS); rst[k]=1; rsig[k]=(SIGNED==1 -> sig : gen);
  rtok[k]=(TOKEN==1 -> 1 : e) }
inline adopt(v) {                      /* close_attempt with the server, its row, the watch; no owner from then on */
  if :: MINE && !ENDED && (st==running || !FENCE) && res==0 -> att=ok; res=v; st=awaiting; owner=0 :: else fi }
inline finish(s) { st=s; ends++; owner=0; owed=(CLASS!=K || s==unresolved); }

proctype Process() {
  byte b, e, v, k, i, sig; mtype plan;
life:
  skip; d_step { e=0; v=0; k=0; i=0; sig=0; plan=leave; if :: boots<BOOTS -> boots++; b=boots :: else -> b=0 fi };
  if :: b==0 -> goto out :: else fi;
idle:
  skip; d_step { e=0; v=0; k=0; sig=0; plan=leave };
  if
  :: atomic { ENDED -> goto out }
  :: atomic { !ENDED && dead[b] -> goto life }
  :: atomic { st==awaiting && !cancel && alive[res] -> finish(complete) }       /* verdict, then end by the epoch seen */
  :: atomic { !ENDED && !dead[b] && ((owner==0 && DUE) || (owner!=0 && dead[owner])) ->
       epoch++; e=epoch; owner=b;
       if :: st==queued || st==quarantined -> st=running :: else fi; goto work }
  :: atomic { !ENDED && !dead[b] && owner==b -> e=epoch; goto work }           /* owned_by: what is mine is worked at */
  fi;
  goto idle;
work:
  DIE;
  d_step {                                                                     /* one read of the rows, one plan */
    if
    :: !MINE || ENDED -> plan=leave
    :: else -> if
      :: att==open && CLASS==K && (RESEND || !cancel) -> plan=resend
      :: att==open && CLASS==K && !RESEND && cancel -> plan=look
      :: att==open && CLASS==N -> plan=unknownend
      :: att==open && (CLASS==S || CLASS==T) && quiet && over -> plan=look
      :: att==open && (CLASS==S || CLASS==T) && !over && (WAITQ || !cancel) -> plan=quarantine
      :: att==open && (CLASS==S || CLASS==T) && !over && !WAITQ && cancel -> plan=look
      :: att==open && OPENEND && cancel -> plan=giveup
      :: att!=open && st==undoing -> plan=undo
      :: att!=open && st!=undoing && cancel && res!=0 -> plan=beginundo
      :: att!=open && st!=undoing && cancel && res==0 -> plan=giveup
      :: att!=open && st==awaiting && !cancel -> plan=park
      :: att!=open && st==running && !cancel && calls<2+REFUSED -> plan=send
      :: att!=open && st==running && !cancel && calls>=2+REFUSED -> plan=giveup
      fi
    fi };
  if
  :: plan==leave -> goto idle
  :: plan==park -> d_step { if :: MINE -> owner=0 :: else fi }; goto idle
  :: plan==quarantine -> d_step { if :: MINE && !ENDED -> st=quarantined; owner=0; quiet=true :: else fi }; goto idle
  :: plan==unknownend -> d_step { if :: MINE && !ENDED -> finish(unresolved) :: else fi }; goto idle
  :: plan==giveup -> d_step { if :: MINE && !ENDED && (att!=open || OPENEND) -> finish(cancelled) :: else fi }; goto idle
  :: plan==beginundo -> d_step { if :: MINE && (st==running || st==awaiting) -> st=undoing; v=1 :: else -> v=0 fi };
       if :: v -> goto work :: else -> goto idle fi
  :: plan==undo -> v=res; DIE; d_step { if :: v!=0 -> if :: alive[v] -> alive[v]=false; living-- :: else fi :: else fi }; DIE;
       d_step { if :: MINE && st==undoing && att!=open -> finish(cancelled) :: else fi }; goto idle
  :: plan==look -> d_step { find(v) }; DIE;
       d_step { if :: v!=0 -> adopt(v) :: v==0 && MINE && !ENDED -> att=void :: else fi }; goto work
  :: plan==send ->
       d_step { if
         :: MINE && st==running && !cancel && !ENDED ->
              calls++; sig=gen; v=1; if :: INTENT -> att=open; quiet=false; over=false :: else fi
         :: else -> v=0 fi };
       if :: v==0 -> goto work :: else fi
  :: plan==resend -> d_step { find(v) };
       if :: v!=0 -> d_step { adopt(v) }; goto work :: else fi;
       d_step { sig=gen; v=(MINE && !ENDED -> 1 : 0) };                          /* guard of the repeat */
       if :: v==0 -> goto idle :: else fi
  fi;
  DIE;                                                                         /* here a process may stand still for long */
  d_step { dispatch(k) };
  DIE;
  if
  :: rst[k]==2 -> d_step { if :: INTENT || MINE -> adopt(rvm[k]) :: else fi }; goto work
  :: rst[k]==3 -> d_step { if :: MINE && !ENDED && plan==send -> att=refusedcall :: else fi }; goto work
  :: rst[k]==4 -> goto work
  :: atomic { unknowns<UNKNOWN -> unknowns++ }; goto work
  fi;
out:
  gone++
}

/* A process that stands still is declared dead by its peer, and goes on. */
proctype Peer() {
  do
  :: atomic { deaths<DEATHS && owner!=0 && !dead[owner] && !ENDED -> deaths++; dead[owner]=true }
  :: ENDED -> break
  od }

#define FLIES(k) (rst[k]==1)
#define FLYING (FLIES(1) || FLIES(2) || FLIES(3) || FLIES(4) || FLIES(5))
#define HID(c) (alive[c] && !seen[c])
#define HIDDEN (HID(1) || HID(2) || HID(3) || HID(4) || HID(5))
#define STRAY(c) (alive[c] && seen[c] && !(JANOWN && st==complete && c==res) && !(JANOPEN && !ENDED && c==res))
#define STRAYS (STRAY(1) || STRAY(2) || STRAY(3) || STRAY(4) || STRAY(5))
#define LOOKS (JANITOR && CLASS!=N && ((ENDED && owed) || JANOPEN))

inline arrive(k) {
  if
  :: CLASS==S && rsig[k]<gen -> rst[k]=4                                       /* its signature is too old */
  :: !(CLASS==S && rsig[k]<gen) && CLASS==K && bytok[rtok[k]]!=0 -> rvm[k]=bytok[rtok[k]]; rst[k]=2
  :: !(CLASS==S && rsig[k]<gen) && !(CLASS==K && bytok[rtok[k]]!=0) ->
       made++; living++; alive[made]=true; seen[made]=(CLASS==K || CLASS==N); rvm[k]=made; rst[k]=2;
       if :: CLASS==K -> bytok[rtok[k]]=made :: else fi;
       assert(!STRICT || living<=1); assert(!STRICT || st!=cancelled)
  :: refusals<REFUSED && !(CLASS==K && bytok[rtok[k]]!=0) -> refusals++; rst[k]=3
  fi }

proctype Cloud() {
  do
  :: atomic { FLIES(1) -> arrive(1) } :: atomic { FLIES(2) -> arrive(2) } :: atomic { FLIES(3) -> arrive(3) }
  :: atomic { FLIES(4) -> arrive(4) } :: atomic { FLIES(5) -> arrive(5) }
  :: atomic { HID(1) -> seen[1]=true } :: atomic { HID(2) -> seen[2]=true } :: atomic { HID(3) -> seen[3]=true }
  :: atomic { HID(4) -> seen[4]=true } :: atomic { HID(5) -> seen[5]=true }
  :: atomic { quiet && !over && !FLYING && !HIDDEN -> over=true; gen++ }
  :: atomic { gone==2 && !FLYING && !HIDDEN && !(LOOKS && STRAYS) && !taking -> break }
  od;
  skip;
  d_step {                                                                     /* all is quiet: judge */
    assert(ends==1);
    assert(st!=complete || alive[res]);
    assert(CLASS==N || living==(st==complete -> 1 : 0));                        /* I8: nothing that nobody owns */
    assert(CLASS!=N || sent<=1);
    assert(CLASS!=N || living==0 || st==complete || owed)
#if WITNESS==1
    ; assert(st!=cancelled || made==0)                                          /* reached: made, and taken back */
#elif WITNESS==2
    ; assert(st!=complete || made<2)                                            /* reached: two were made, one stays */
#endif
  } }

/* Sees what it has no owner for, and only later, through a job of its own, is it terminated. */
proctype Janitor() {
  byte v;

end_wait:
  do
  :: atomic { LOOKS && STRAY(1) -> v=1; taking=true } -> goto take
  :: atomic { LOOKS && STRAY(2) -> v=2; taking=true } -> goto take
  :: atomic { LOOKS && STRAY(3) -> v=3; taking=true } -> goto take
  :: atomic { LOOKS && STRAY(4) -> v=4; taking=true } -> goto take
  :: atomic { LOOKS && STRAY(5) -> v=5; taking=true } -> goto take
  od;
take: skip; d_step { if :: alive[v] -> alive[v]=false; living-- :: else fi; v=0; taking=false };
  goto end_wait }

proctype Person() { if :: atomic { CANCEL && !ENDED -> cancel=true } :: ENDED fi }

init { atomic { run Process(); run Process(); run Peer(); run Cloud(); run Janitor(); run Person() } }
