/* node.pml: lives, beats and takeover, in ticks of time. A beats and starts effects on guests; B watches A's beat with a clock of
 * its own and takes A's jobs over. The database may be away, A may stand still (SIGSTOP, a machine that sleeps), B may sleep.
 *
 * Code: registry/node.rs (Beat, may_start), registry/peers.rs, store/provisioning/node.rs (beat, declare dead), transition/claim.rs.
 * Figures of the code: R 1 s, S 3 s, C 1 s, L 6 s, P 1 s; here R = P = 1 tick and S + C < L as there.
 */
#ifndef S
#define S 2             /* no effect starts later after the last beat was sent */
#endif
#ifndef C
#define C 1             /* longest effect */
#endif
#ifndef L
#define L 4             /* a beat that stood still so long is dead */
#endif
#ifndef TICKS
#define TICKS 9
#endif
#ifndef AWAY
#define AWAY 5          /* ticks the database may be away in all */
#endif
/* Rules; a mutant turns one round. */
#ifndef LOCAL
#define LOCAL 1         /* the holder's own limit S */
#endif
#ifndef BOOTTIME
#define BOOTTIME 1      /* it is measured by a clock that goes on while the process stands still */
#endif
#ifndef RESET
#define RESET 1         /* a read that failed starts the stop-watch anew */
#endif
#ifndef SEENBEAT
#define SEENBEAT 1      /* "dead" is written only where the beat is the one seen */
#endif
#ifndef DEADOWNER
#define DEADOWNER 1     /* only a dead owner's jobs are taken */
#endif
#ifndef PAUSE
#define PAUSE 0         /* 1: the process may stand still between the check and the call */
#endif

byte now, beat, since, still, seen, age, away, stood;
bool down, cut, stopped, beaten, read, failed, decided, dead, taken, calling, checked, asleep;

#define OVER (now>=TICKS)
proctype Time() {
  do
  :: atomic { !OVER && (beaten || stopped || dead) && (read || asleep) && (!calling || stopped || age<C) && (!checked || PAUSE) ->
       now++; beaten=false; read=false;
       if :: calling && age<9 -> age++ :: else fi;
       if :: since<9 && (BOOTTIME || !stopped) -> since++ :: else fi;
       if :: still<9 -> still++ :: else fi;
       if :: stopped -> stood++ :: else fi;
       if :: down -> away++; if :: away>=AWAY -> down=false :: true fi :: !down && away<AWAY -> down=true :: true fi }
  :: OVER -> break
  od }
proctype A() {
  do
  :: atomic { !OVER && !stopped && !beaten && !dead -> beaten=true; if :: !down && !cut -> beat++; since=0 :: else fi }
  :: atomic { !OVER && !cut && stood==0 -> cut=true }                          /* its own link to the database */
  :: atomic { !OVER && !stopped && !calling && !checked && !dead && (!LOCAL || since<S) -> checked=true }
  :: atomic { !OVER && !stopped && checked -> checked=false; calling=true; age=0; assert(!taken) }
  :: atomic { !OVER && !stopped && calling -> calling=false }
  :: atomic { !OVER && !stopped && stood==0 && (PAUSE || !checked) && !calling -> stopped=true }
  :: atomic { !OVER && stopped && (!checked || PAUSE) -> stopped=false }
  :: OVER -> break
  od }
proctype B() {
  do
  :: atomic { !OVER && !read && !asleep && !decided -> read=true;
       if
       :: down -> failed=true
       :: !down && (beat!=seen || (RESET && failed)) -> seen=beat; still=0; failed=false
       :: !down && !(beat!=seen || (RESET && failed)) -> failed=false; if :: still>=L && !dead -> decided=true :: else fi
       fi }
  :: atomic { !OVER && decided && down -> decided=false }                       /* not written: the next look decides anew */
  :: atomic { !OVER && decided && !down -> decided=false;
       if :: !SEENBEAT || beat==seen -> dead=true; assert(stood>0 || cut) :: else fi }   /* an outage alone kills nobody */
  :: atomic { !OVER && !taken && (dead || !DEADOWNER) -> taken=true; assert(!calling) }
  :: atomic { !OVER && !asleep && !decided && now>2 -> asleep=true }
  :: atomic { !OVER && asleep -> asleep=false; if :: RESET -> failed=true :: else fi }   /* later than 2P after the last read */
  :: OVER -> break
  od }
init { atomic { run Time(); run A(); run B() } }
