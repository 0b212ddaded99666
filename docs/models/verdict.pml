/* verdict.pml: a job that waits for a verdict; two monitors that may die between look and write; two registries; nudges that
 * may be lost; a cancel that races with the end; a deadline.
 *
 * Code: jobs/watching.rs (look_and_tell), transition/{verdict,end,wait,claim}.rs, jobs/machine.rs (awaiting, owned_awaiting,
 * decided, give_up), registry/actor.rs (needing_an_actor), web: cancel_asked. A nudge is a hint: here it may never come, so what
 * brings a job on is a sweep by state. That nothing waits for ever is checked as "no invalid end state": when nobody can move
 * any more, the job must have ended.
 */
#ifndef DEATHS
#define DEATHS 1        /* of registries */
#endif
#ifndef MDEATHS
#define MDEATHS 1       /* of monitors */
#endif
#ifndef MONITORS
#define MONITORS 2
#endif
#ifndef LATE
#define LATE 1          /* 1: the deadline may pass */
#endif
/* Rules; a mutant turns one round. */
#ifndef SWEEP
#define SWEEP 1         /* registries read decided and due jobs by state; 0: they wait for the nudge */
#endif
#ifndef WSWEEP
#define WSWEEP 1        /* monitors read open watches by state; 0: only those whose nudge was never taken */
#endif
#ifndef VEPOCH
#define VEPOCH 0        /* 1: a verdict counts only under the epoch its watch was made in */
#endif
#ifndef ENDGUARD
#define ENDGUARD 1      /* complete only from awaiting, without a cancel, and no undo begun */
#endif
#ifndef UNDOFIRST
#define UNDOFIRST 1     /* "undoing" is written before the first call of it */
#endif
#ifndef OWNSWEEP
#define OWNSWEEP 1      /* a life works at what it owns, whatever its actor came to */
#endif
#ifndef FIRSTWINS
#define FIRSTWINS 1     /* an end is written where there is none */
#endif

mtype = { awaiting, undoing, complete, failed, cancelled };
mtype = { nothing, reached, bad };
mtype = { leave, docomplete, dofail, dobegin, doundo, dopark };

mtype st = awaiting; byte epoch=1, wepoch=1, owner, ends; bool cancel, late;
bool open=true; mtype found[3];               /* the watch; evidence of monitor 1 and 2, one row each */
bool wnudge=true, jnudge;                     /* messages that may or may not be there */
mtype world; bool undone;                     /* what the server is; whether it was taken back */
bool dead[4]; byte boots, deaths, mdeaths, gone;

#define ENDED (st==complete || st==failed || st==cancelled)
#define SEENBY(m) (found[m]!=nothing && (!VEPOCH || wepoch==epoch))
#define DECIDED (!open && (SEENBY(1) || SEENBY(2)))
#define FIRST (SEENBY(1) -> found[1] : found[2])
#define MINE (epoch==e && owner==b)
#define NOT_ENDED (!FIRSTWINS || !ENDED)

proctype Monitor(byte me) {
  mtype v;
idle: skip;
  d_step { v=nothing };
  if
  :: ENDED -> goto out
  :: atomic { open && !ENDED && (WSWEEP || wnudge) -> wnudge=false }
  fi;
  if :: atomic { mdeaths<MDEATHS -> mdeaths++; goto idle } :: true fi;
  v=(undone -> bad : world);                                                   /* the look */
  if :: atomic { mdeaths<MDEATHS -> mdeaths++; goto idle } :: true fi;
  d_step { if                                                                  /* one item: evidence, watch closed, announced */
    :: found[me]==nothing -> found[me]=v; if :: open -> open=false; if :: jnudge=true :: true fi :: else fi
    :: else -> open=false fi };
  goto idle;
out: gone++
}

proctype Registry() {
  byte b, e; mtype plan;
life: skip;
  d_step { e=0; plan=leave; if :: boots<2+DEATHS -> boots++; b=boots :: else -> b=0 fi };
  if :: b==0 -> goto out :: else fi;
idle: skip;
  d_step { e=0; plan=leave };
  if
  :: ENDED -> goto out
  :: atomic { !ENDED && dead[b] -> goto life }
  /* decided and not cancelled: ends at once, by the epoch seen */
  :: atomic { !ENDED && owner==0 && DECIDED && !cancel && st==awaiting && (SWEEP || jnudge) && (FIRST==reached) ->
       jnudge=false; e=epoch; plan=docomplete }
  :: atomic { !ENDED && !dead[b] && ((owner==0 && (SWEEP || jnudge) && ((DECIDED && (cancel || FIRST==bad)) || cancel || late))
            || (owner!=0 && dead[owner])) -> jnudge=false; epoch++; e=epoch; owner=b }
  :: atomic { !ENDED && !dead[b] && OWNSWEEP && owner==b -> e=epoch }          /* owned_by: a move that was refused */
  fi;
  if :: plan==docomplete -> goto act :: else fi;
work: skip;
  if :: atomic { deaths<DEATHS -> deaths++; dead[b]=true; goto life } :: true fi;
  d_step { if
    :: !MINE || ENDED -> plan=leave
    :: else -> if
       :: st==undoing -> plan=doundo
       :: st==awaiting && cancel -> plan=dobegin
       :: st==awaiting && !cancel && DECIDED && FIRST==reached -> plan=docomplete
       :: st==awaiting && !cancel && DECIDED && FIRST==bad -> plan=dobegin
       :: st==awaiting && !cancel && !DECIDED && late -> plan=dobegin
       :: st==awaiting && !cancel && !DECIDED && !late -> plan=dopark
       fi fi };
act: skip;
  if
  :: plan==leave -> goto idle
  :: plan==dopark -> d_step { if :: MINE -> owner=0 :: else fi }; goto idle
  :: plan==docomplete ->
       d_step { if :: epoch==e && NOT_ENDED && (!ENDGUARD || (st==awaiting && !cancel)) -> assert(!cancel); st=complete; ends++; owner=0 :: else fi };
       goto idle
  :: plan==dobegin ->
       if :: UNDOFIRST -> d_step { if :: MINE && st==awaiting -> st=undoing :: else -> plan=leave fi } :: else fi;
       if :: plan==leave -> goto idle :: else fi;
       if :: UNDOFIRST -> goto work :: else fi;
       undone=true; goto settle
  :: plan==doundo -> undone=true
  fi;
settle: skip;
  if :: atomic { deaths<DEATHS -> deaths++; dead[b]=true; goto life } :: true fi;
  d_step { if :: epoch==e && NOT_ENDED -> ends++; owner=0; if :: cancel -> st=cancelled :: else -> st=failed fi :: else fi };
  goto idle;
out: gone++
}

proctype Person() { if :: atomic { !ENDED -> cancel=true } :: ENDED :: true fi }
proctype Time() { if :: atomic { LATE && !ENDED -> late=true } :: ENDED :: true fi }
/* A registry that stands still is declared dead, and goes on. */
proctype Peer() { if :: atomic { deaths<DEATHS && owner!=0 && !dead[owner] -> deaths++; dead[owner]=true } :: ENDED fi }
proctype Judge() {
  gone==2+MONITORS;
  assert(ends==1);
  assert(st!=complete || (!undone && (found[1]==reached || found[2]==reached)));
  assert(st!=cancelled || (cancel && undone));
  assert(st!=failed || undone)
}
init { atomic { found[1]=nothing; found[2]=nothing; if :: world=reached :: world=bad fi;
  run Monitor(1);
#if MONITORS==2
  run Monitor(2);
#endif
  run Registry(); run Registry(); run Person(); run Time(); run Peer(); run Judge() } }
