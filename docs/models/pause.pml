/* pause.pml: a queued job, a pause that comes and goes, two registries that want to begin it. The transactions of a server may
 * interleave: a claim that is refused puts the job by in its own, which may have read the pause before it was ended.
 *
 * Code: transition/claim.rs (the claim's condition), transition/hold.rs (hold, hold_queued, wake, released), registry/pauses.rs.
 */
#ifndef PAUSES
#define PAUSES 2        /* times that somebody pauses */
#endif
/* Rules; a mutant turns one round. */
#ifndef INCLAIM
#define INCLAIM 1       /* the pause is asked for by the claim's own condition; 0: read before it */
#endif
#ifndef SWEEP
#define SWEEP 1         /* a sweep wakes what is put by and held by nothing */
#endif
#ifndef WAKES
#define WAKES 1         /* who ends a pause wakes what it held */
#endif
bool paused, due=true, putby, begun, over; byte pauses;

proctype Registry() {
  do
  :: begun -> break
  :: atomic { !begun && due && INCLAIM && !paused -> begun=true; due=false }
  :: atomic { !begun && due && INCLAIM && paused -> skip };                    /* refused: 0 rows */
       atomic { if :: !begun -> due=false; putby=true :: else fi }             /* put by, as read in this transaction */
  :: atomic { !begun && due && !INCLAIM && !paused -> skip };
       atomic { if :: !begun -> begun=true; due=false; assert(!paused) :: else fi }
  :: atomic { !begun && due && !INCLAIM && paused -> due=false; putby=true }
  :: atomic { !begun && SWEEP && putby && !paused -> putby=false; due=true }
  od }
proctype Person() {
  do
  :: atomic { !paused && pauses<PAUSES -> pauses++; paused=true; if :: !begun && due -> due=false; putby=true :: else fi }
  :: atomic { paused -> paused=false; if :: WAKES && putby -> putby=false; due=true :: else fi }
  :: atomic { !paused && (pauses==PAUSES || begun) -> over=true; break }
  od }
proctype Judge() { over; begun }                /* when nobody pauses any more, it begins */
init { atomic { run Registry(); run Registry(); run Person(); run Judge() } }
