//! Rows that the items of one transaction write together at its end, in one statement for all of them.
//!
//! An item's guard is a statement of its own, because its outcome is the item's answer. What follows a guard only has to
//! be in the same commit; on a server each statement is a round trip, so such rows are gathered and written at once. An
//! embedded database is asked without one, and keeps its statement for a single row prepared.
//!
//! A statement of a later item does not see what is gathered. Mostly it need not: an item is sent when the one it follows
//! from was answered, and that is after its commit. But an item that was given up as unknown may come late, beside
//! another of the same job; so whatever asks for open attempts or watches calls [`catch_up`] first.

use std::any::{Any, TypeId};
use std::cell::RefCell;

use diesel::QueryResult;

use super::AnyConnection;

/// Rows of a kind.
pub(crate) trait Later: Any + Default {
    /// Kinds with a lower number are written first; the others may read them.
    const ORDER: u8;

    /// Writes all that was gathered. An error fails the whole transaction, whose items are then run again one by one.
    fn write(self, connection: &mut AnyConnection) -> QueryResult<()>;
}

/// What was gathered of one kind.
trait Gathered {
    fn order(&self) -> u8;
    fn kind(&self) -> TypeId;
    fn any(&mut self) -> &mut dyn Any;
    fn write(self: Box<Self>, connection: &mut AnyConnection) -> QueryResult<()>;
}

impl<L: Later> Gathered for L {
    fn order(&self) -> u8 {
        L::ORDER
    }

    fn kind(&self) -> TypeId {
        TypeId::of::<L>()
    }

    fn any(&mut self) -> &mut dyn Any {
        self
    }

    fn write(self: Box<Self>, connection: &mut AnyConnection) -> QueryResult<()> {
        L::write(*self, connection)
    }
}

thread_local! {
    /// What the transaction of this thread has gathered; none while nothing is gathered.
    static GATHERED: RefCell<Option<Vec<Box<dyn Gathered>>>> = const { RefCell::new(None) };
}

/// While it lives, this thread gathers.
pub(super) struct Gathering(());

impl Gathering {
    /// For the writes of this connection; an embedded database gathers nothing.
    pub(super) fn begin(connection: &AnyConnection) -> Self {
        GATHERED.set(connection.is_server().then(Vec::new));
        Self(())
    }

    /// Writes all that was gathered.
    pub(super) fn write(self, connection: &mut AnyConnection) -> QueryResult<()> {
        let all = GATHERED.take().unwrap_or_default();
        // What the rows themselves write is written at once.
        drop(self);
        write_all(all, connection)
    }
}

fn write_all(mut all: Vec<Box<dyn Gathered>>, connection: &mut AnyConnection) -> QueryResult<()> {
    all.sort_by_key(|kind| kind.order());
    all.into_iter().try_for_each(|kind| kind.write(connection))
}

/// Writes what earlier items of the transaction gathered, so that the next statement sees it.
///
/// # Errors
/// What the database reports.
pub(crate) fn catch_up(connection: &mut AnyConnection) -> QueryResult<()> {
    let all = GATHERED.with_borrow_mut(|gathered| gathered.as_mut().map(std::mem::take));
    write_all(all.unwrap_or_default(), connection)
}

impl Drop for Gathering {
    fn drop(&mut self) {
        GATHERED.set(None);
    }
}

/// Writes rows with those of the other items, or at once where nobody gathers.
///
/// # Errors
/// What the database reports.
pub(crate) fn later<L: Later>(connection: &mut AnyConnection, add: impl FnOnce(&mut L)) -> QueryResult<()> {
    let left = GATHERED.with_borrow_mut(|gathered| {
        let Some(all) = gathered else { return Some(add) };
        if !all.iter().any(|kind| kind.kind() == TypeId::of::<L>()) {
            all.push(Box::new(L::default()));
        }
        let rows = all.iter_mut().find_map(|kind| kind.any().downcast_mut::<L>());
        if let Some(rows) = rows {
            add(rows);
        }
        None
    });
    match left {
        None => Ok(()),
        Some(add) => {
            let mut rows = L::default();
            add(&mut rows);
            rows.write(connection)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Gathering, Later, catch_up, later};
    use crate::store::{AnyConnection, Manager};
    use diesel::QueryResult;
    use std::cell::RefCell;

    thread_local! {
        static WRITTEN: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
    }

    #[derive(Default)]
    struct First(Vec<u8>);
    #[derive(Default)]
    struct Second(Vec<u8>);

    impl Later for First {
        const ORDER: u8 = 1;
        fn write(self, _: &mut AnyConnection) -> QueryResult<()> {
            WRITTEN.with_borrow_mut(|w| w.push(format!("first {:?}", self.0)));
            Ok(())
        }
    }

    impl Later for Second {
        const ORDER: u8 = 2;
        fn write(self, _: &mut AnyConnection) -> QueryResult<()> {
            WRITTEN.with_borrow_mut(|w| w.push(format!("second {:?}", self.0)));
            Ok(())
        }
    }

    #[test]
    fn rows_are_written_together_in_their_order_and_without_a_transaction_at_once() {
        let mut connection = Manager::new("sqlite://:memory:").expect("a URL").open().expect("memory");
        let c = &mut connection;
        let begin = || {
            super::GATHERED.set(Some(Vec::new()));
            Gathering(())
        };
        let gathering = begin();
        later::<Second>(c, |rows| rows.0.push(1)).expect("gathered");
        later::<First>(c, |rows| rows.0.push(2)).expect("gathered");
        later::<Second>(c, |rows| rows.0.push(3)).expect("gathered");
        assert!(WRITTEN.take().is_empty());
        catch_up(c).expect("written");
        assert_eq!(WRITTEN.take(), ["first [2]", "second [1, 3]"], "the next statement sees them");
        later::<First>(c, |rows| rows.0.push(6)).expect("gathered");
        gathering.write(c).expect("written");
        assert_eq!(WRITTEN.take(), ["first [6]"], "and no row is written twice");
        // What a failed transaction gathered is gone with it.
        let gathering = begin();
        later::<First>(c, |rows| rows.0.push(4)).expect("gathered");
        drop(gathering);
        // An embedded database gathers nothing.
        let _gathering = Gathering::begin(c);
        later::<First>(c, |rows| rows.0.push(5)).expect("written");
        assert_eq!(WRITTEN.take(), ["first [5]"]);
    }
}
