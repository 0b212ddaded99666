/* commit.pml: group commit. Items of one batch run in one transaction; its commit may be done, not done, or unknown (its answer is
 * lost); then each item runs again in a transaction of its own, whose answer may be lost as well. Another node writes between.
 *
 * Code: store/writer.rs, store/provisioning/accept.rs (own uid), transition/{claim,end,verdict}.rs (as wanted means it was mine).
 * Items: 1 and 2 submit under one idempotency key, 3 without a key, 4 claims the job as seen (epoch 0), 5 writes a verdict.
 */
/* Rules; a mutant turns one round. */
#ifndef UID
#define UID 1           /* each item has a uid made before: a hit on the own one means "done already" */
#endif
#ifndef REREAD
#define REREAD 1        /* a claim that changed nothing reads again: as wanted means mine */
#endif
#ifndef GUARD
#define GUARD 1         /* the guarded statement comes first */
#endif
#ifndef ABSOLUTE
#define ABSOLUTE 1      /* values are absolute: epoch seen + 1, not epoch + 1 */
#endif
#ifndef LOST
#define LOST 2          /* answers of commits that are lost */
#endif

byte keyed, plain, half, owner, epoch, verdicts;      /* rows: jobs under the key and without, halves of items, claim, evidence */
bool mine[4];                                         /* whose uid made it */
byte ans[6];                                          /* 1 done  2 another's  3 refused  4 unknown */
byte lost, faults; bool other, finished;

/* One item inside its transaction. */
inline item(x) {
  if
  :: x<=2 -> if
      :: UID && mine[x] -> ans[x]=1
      :: !(UID && mine[x]) && keyed>0 -> ans[x]=2; if :: GUARD -> skip :: else -> half++ fi
      :: !(UID && mine[x]) && keyed==0 -> keyed++; mine[x]=true; ans[x]=1
      fi
  :: x==3 -> if
      :: UID && mine[3] -> ans[3]=1
      :: !(UID && mine[3]) -> plain++; mine[3]=true; ans[3]=1
      fi
  :: x==4 -> if
      :: owner==0 && (!ABSOLUTE || epoch==0) -> owner=1; epoch=(ABSOLUTE -> 1 : epoch+1); ans[4]=1
      :: !(owner==0 && (!ABSOLUTE || epoch==0)) && !ABSOLUTE && owner==1 -> epoch++; ans[4]=1
      :: !(owner==0 && (!ABSOLUTE || epoch==0)) && ABSOLUTE && REREAD && owner==1 && epoch==1 -> ans[4]=1
      :: !(owner==0 && (!ABSOLUTE || epoch==0)) && ABSOLUTE && !(REREAD && owner==1 && epoch==1) -> ans[4]=3
      :: !(owner==0 && (!ABSOLUTE || epoch==0)) && !ABSOLUTE && owner!=1 -> ans[4]=3
      fi
  :: x==5 -> verdicts=(UID || verdicts==0 -> 1 : verdicts+1); ans[5]=1
  fi }

proctype Writer() {
  byte x, k1, k2, k3, o, e, v; bool m1, m2, m3;
  byte how;
  if
  :: how=1
  :: lost<LOST -> lost++; how=2                                                /* committed, its answer is lost */
  :: lost<LOST -> lost++; how=3                                                /* not committed, its answer is lost */
  :: faults<1 -> faults++; how=4                                               /* an item failed in the middle: rolled back */
  fi;
  atomic {                                                                     /* the transaction, under the writer's lock */
    k1=keyed; k2=plain; k3=half; o=owner; e=epoch; v=verdicts; m1=mine[1]; m2=mine[2]; m3=mine[3];
    x=1; do :: x<=(how==4 -> 3 : 5) -> item(x); x++ :: else -> break od;
    if
    :: how==3 || how==4 -> keyed=k1; plain=k2; half=k3; owner=o; epoch=e; verdicts=v; mine[1]=m1; mine[2]=m2; mine[3]=m3
    :: else
    fi };
  if
  :: how==1 -> skip
  :: else ->                                                                   /* one by one; another node may write between */
       x=1;
       do
       :: x<=5 -> atomic { item(x); if :: true :: lost<LOST -> lost++; ans[x]=4 fi };
            if :: ans[x]==4 -> atomic { item(x) } :: else fi; x++
       :: else -> break
       od
  fi;
  finished=true
}
/* Another node claims the same job, if it is free. */
proctype Other() { if :: atomic { owner==0 && epoch==0 -> owner=2; epoch=1; other=true } :: finished fi }
proctype Judge() {
  finished;
  assert(keyed==1); assert(plain==1); assert(half==0); assert(verdicts==1);
  assert(ans[1]==1 || ans[1]==2); assert(ans[2]==1 || ans[2]==2); assert(ans[3]==1 && ans[5]==1);
  assert(epoch==1 || (epoch==0 && owner==0));
  assert((ans[4]==1) == (owner==1))                                            /* whoever is in the row knows it */
}
init { atomic { run Writer(); run Other(); run Judge() } }
