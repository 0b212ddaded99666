//! Where an actor stands: who started it, on which thread, what waits for it, and the figures of its kind.

use actix::prelude::*;

use super::tests::until;
use super::{Life, Options, Supervised, Supervisor};
use crate::ops::Health;

#[derive(Clone)]
struct Spec {
    name: &'static str,
    house: Supervisor,
}

struct Kin {
    spec: Spec,
}

impl Actor for Kin {
    type Context = Context<Self>;
}

impl Supervised for Kin {
    type Spec = Spec;
    const KIND: &'static str = "kin";

    fn key(spec: &Spec) -> String {
        spec.name.to_owned()
    }

    fn fresh(spec: Spec, _: Life) -> Self {
        Self { spec }
    }
}

/// Starts a child, at once or from a future of the actor.
#[derive(Message)]
#[rtype(result = "()")]
struct Bear(&'static str, bool);

#[derive(Message)]
#[rtype(result = "()")]
struct Trip;

impl Handler<Bear> for Kin {
    type Result = ();
    fn handle(&mut self, Bear(name, later): Bear, ctx: &mut Context<Self>) {
        let bear = move |house: &Supervisor| {
            let spec = Spec { name, house: house.clone() };
            drop(house.spawn::<Self>(&house.here(), spec, Options::permanent()));
        };
        if later {
            ctx.spawn(async {}.into_actor(self).map(move |(), actor, _| bear(&actor.spec.house)));
        } else {
            bear(&self.spec.house);
        }
    }
}

impl Handler<Trip> for Kin {
    type Result = ();
    fn handle(&mut self, _: Trip, _: &mut Context<Self>) {
        panic!("on request")
    }
}

#[actix_rt::test]
async fn an_actor_knows_who_started_it_and_its_kind_keeps_what_it_did() {
    let house = Supervisor::new(Health::new());
    let spec = Spec { name: "first", house: house.clone() };
    let first = house.spawn::<Kin>(&house.here(), spec, Options::permanent());
    first.tell(Bear("second", false)).expect("room");
    first.tell(Bear("third", true)).expect("room");
    let waiting = house.snapshots().remove(0);
    assert_eq!((waiting.mailbox, waiting.oldest.is_some(), waiting.parent), (2, true, None));
    assert_eq!((waiting.arbiter, waiting.budget, waiting.window_secs), ("here", 5, 60));
    until("both children are there", || house.snapshots().len() == 3).await;
    for child in house.snapshots().into_iter().filter(|actor| actor.key != "first") {
        assert_eq!(child.parent.as_deref(), Some("kin/first"), "{}", child.key);
    }
    first.tell(Trip).expect("room");
    until("it panicked", || house.kinds()[0].panics == 1).await;
    let kind = house.kinds().remove(0);
    assert_eq!((kind.kind, kind.count, kind.restarts, kind.handled), ("kin", 3, 1, 2));
    assert!(kind.p99_us.is_some() && kind.oldest.is_none() && kind.deepest == 0, "{kind:?}");
    assert!(house.snapshots().iter().all(|actor| actor.oldest.is_none()));
}
