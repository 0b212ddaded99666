use diesel::prelude::*;
use tempfile::TempDir;

use super::super::schema::{credential as table, tenant_key};
use super::super::vault::{Credential, Kek, Place};
use super::{Asked, CredentialError, CredentialStore, Refusal};
use crate::crypto::{Algorithm, Key, Secret};
use crate::km::testkit::{CANARY, credential, open_store, place};
use crate::model::{AccountId, CustomerId};
use crate::store::{AnyConnection, CREDENTIALS, Store};

type Change = fn(&mut AnyConnection) -> QueryResult<usize>;

struct Fixture {
    store: Store,
    credentials: CredentialStore,
    kek: Key,
    folder: TempDir,
}

fn fixture() -> Fixture {
    let folder = tempfile::tempdir().expect("a folder");
    let (store, kek) = (open_store(&folder), Key::random());
    let credentials = CredentialStore::new(store.clone(), Kek::new(&kek, Algorithm::default()));
    Fixture { store, credentials, kek, folder }
}

fn asked(place: &Place) -> Asked<'_> {
    Asked { reference: &place.reference, customer: place.customer, account: place.account }
}

fn refusal(error: CredentialError) -> Refusal {
    match error {
        CredentialError::Refused(refusal) => refusal,
        other => panic!("no refusal: {other}"),
    }
}

fn with_secret(secret: &str) -> Credential {
    Credential { access_key: "AKIA".to_owned(), secret: Secret::from(secret.to_owned()) }
}

impl Fixture {
    async fn refused(&self, place: &Place) -> Refusal {
        refusal(self.credentials.get(&asked(place)).await.err().expect("refused"))
    }

    async fn sealed(&self, reference: &'static str) -> Vec<u8> {
        let read = self.store.read(move |c| table::table.find(reference).select(table::sealed).first(c));
        read.await.expect("a row")
    }
}

#[actix::test]
async fn what_was_entered_last_comes_out() {
    let f = fixture();
    assert_eq!(f.credentials.put(&place(), with_secret("old")).await.expect("kept"), 1);
    assert_eq!(f.credentials.put(&place(), credential()).await.expect("replaced"), 2);
    let found = f.credentials.get(&asked(&place())).await.expect("found");
    assert_eq!(found.credential.secret.expose_text(), Some(CANARY));
    assert_eq!((found.place, found.version), (place(), 2));

    let moved = Place { account: AccountId(7), endpoint: "cloud-2".to_owned(), ..place() };
    f.credentials.put(&moved, with_secret("new")).await.expect("entered anew for another endpoint");
    assert_eq!(f.refused(&place()).await, Refusal::OtherAccount(7));
    assert!(f.credentials.get(&asked(&moved)).await.is_ok());
}

#[actix::test]
async fn others_get_nothing_and_cannot_overwrite() {
    let f = fixture();
    f.credentials.put(&place(), credential()).await.expect("kept");
    let other = Place { customer: CustomerId(9), ..place() };
    assert_eq!(f.refused(&other).await, Refusal::OtherTenant(CustomerId(1)));
    assert_eq!(f.refused(&Place { account: AccountId(9), ..place() }).await, Refusal::OtherAccount(2));
    assert_eq!(f.refused(&Place { reference: "cred-2".to_owned(), ..place() }).await, Refusal::Unknown);
    let error = f.credentials.put(&other, with_secret("mine")).await.expect_err("taken");
    assert!(matches!(error, CredentialError::Taken(_)), "{error}");
    assert!(f.credentials.get(&asked(&place())).await.is_ok());
}

#[actix::test]
async fn a_row_changed_in_the_database_opens_nothing() {
    let f = fixture();
    f.credentials.put(&place(), credential()).await.expect("kept");
    let other = Place { reference: "cred-2".to_owned(), customer: CustomerId(9), ..place() };
    f.credentials.put(&other, with_secret("of another tenant")).await.expect("kept");
    let changes: [(&str, Change); 4] = [
        ("tenant", |c| diesel::update(table::table.find("cred-1")).set(table::customer.eq(9)).execute(c)),
        ("account", |c| diesel::update(table::table.find("cred-1")).set(table::account.eq(3)).execute(c)),
        ("endpoint", |c| {
            diesel::update(table::table.find("cred-1")).set(table::endpoint.eq("evil")).execute(c)
        }),
        ("version", |c| diesel::update(table::table.find("cred-1")).set(table::version.eq(5)).execute(c)),
    ];
    for (part, change) in changes {
        f.store.write(change).await.expect("written");
        let (customer, account) = match part {
            "tenant" => (CustomerId(9), place().account),
            "account" => (place().customer, AccountId(3)),
            _ => (place().customer, place().account),
        };
        let refused = f.refused(&Place { customer, account, ..place() }).await;
        assert!(matches!(refused, Refusal::Sealed(_)), "{part}: {refused}");
        let restore = |c: &mut AnyConnection| {
            diesel::update(table::table.find("cred-1"))
                .set((
                    table::customer.eq(1),
                    table::account.eq(2),
                    table::endpoint.eq("cloud-1"),
                    table::version.eq(1),
                ))
                .execute(c)
        };
        f.store.write(restore).await.expect("written");
        assert!(f.credentials.get(&asked(&place())).await.is_ok(), "{part} restored");
    }
    // The other tenant's sealed bytes in this tenant's row.
    let foreign = f.sealed("cred-2").await;
    let copy = move |c: &mut AnyConnection| {
        diesel::update(table::table.find("cred-1")).set(table::sealed.eq(&foreign)).execute(c)
    };
    f.store.write(copy).await.expect("written");
    assert!(matches!(f.refused(&place()).await, Refusal::Sealed(_)));
}

#[actix::test]
async fn an_old_row_put_back_is_noticed() {
    let f = fixture();
    f.credentials.put(&place(), with_secret("withdrawn")).await.expect("kept");
    let old = f.sealed("cred-1").await;
    f.credentials.put(&place(), credential()).await.expect("replaced");
    assert!(f.credentials.get(&asked(&place())).await.is_ok());
    let back = move |c: &mut AnyConnection| {
        let row = table::table.find("cred-1");
        diesel::update(row).set((table::sealed.eq(&old), table::version.eq(1))).execute(c)
    };
    f.store.write(back).await.expect("written");
    assert_eq!(f.refused(&place()).await, Refusal::RolledBack { found: 1, newest: 2 });
}

#[actix::test]
async fn racing_entries_each_get_a_version_of_their_own() {
    let f = fixture();
    let place = place();
    let entries = (0..4).map(|_| f.credentials.put(&place, credential()));
    let mut versions: Vec<i64> =
        futures_util::future::join_all(entries).await.into_iter().filter_map(Result::ok).collect();
    versions.sort_unstable();
    let expected: Vec<i64> = (1..=i64::try_from(versions.len()).expect("few")).collect();
    assert_eq!(versions, expected);
    assert!(f.credentials.get(&asked(&place)).await.is_ok());
}

#[actix::test]
async fn a_new_key_encryption_key_takes_over_without_a_pause() {
    let f = fixture();
    f.credentials.put(&place(), credential()).await.expect("kept");
    let new = Key::random();
    let kek = Kek::new(&new, Algorithm::default()).accepting(&f.kek);
    let during = CredentialStore::new(f.store.clone(), kek);
    assert!(during.get(&asked(&place())).await.is_ok(), "before the rewrap");
    assert_eq!(during.rewrap(100).await.expect("rewrapped"), 1);
    assert_eq!(during.rewrap(100).await.expect("nothing left"), 0);
    let after = CredentialStore::new(f.store.clone(), Kek::new(&new, Algorithm::default()));
    assert!(after.get(&asked(&place())).await.is_ok(), "the former key is not needed any more");
    let error = f.credentials.get(&asked(&place())).await.err().expect("it opens nothing any more");
    assert!(matches!(error, CredentialError::Keys(_)), "{error}");
}

#[actix::test]
async fn a_wrong_key_encryption_key_is_noticed_at_the_start() {
    let f = fixture();
    f.credentials.check().await.expect("an empty database fits every key");
    f.credentials.put(&place(), credential()).await.expect("kept");
    f.credentials.check().await.expect("its own key");
    let wrong = CredentialStore::new(f.store.clone(), Kek::new(&Key::random(), Algorithm::default()));
    let error = wrong.check().await.expect_err("another key");
    assert!(matches!(error, CredentialError::Keys(_)), "{error}");
    let error = wrong.put(&place(), credential()).await.expect_err("nothing is sealed under a doubtful key");
    assert!(matches!(error, CredentialError::Keys(_)), "{error}");
}

#[actix::test]
async fn the_database_file_holds_no_secret() {
    let f = fixture();
    f.credentials.put(&place(), credential()).await.expect("kept");
    let rows = f.store.read(|c| tenant_key::table.count().get_result::<i64>(c)).await.expect("counted");
    assert_eq!(rows, 1);
    for entry in std::fs::read_dir(f.folder.path()).expect("a folder") {
        let bytes = std::fs::read(entry.expect("an entry").path()).expect("a file");
        assert!(!bytes.windows(CANARY.len()).any(|part| part == CANARY.as_bytes()));
    }
}

#[actix::test]
async fn parts_have_limits() {
    let f = fixture();
    for reference in ["", "with space", &"x".repeat(65)] {
        let place = Place { reference: reference.to_owned(), ..place() };
        let error = f.credentials.put(&place, credential()).await.expect_err("refused");
        assert!(matches!(error, CredentialError::Invalid(_)), "{reference:?}");
    }
    let long = with_secret(&"x".repeat(16 * 1024 + 1));
    assert!(matches!(f.credentials.put(&place(), long).await, Err(CredentialError::Invalid(_))));
}

#[actix::test]
async fn the_tables_come_and_go_and_come() {
    let folder = tempfile::tempdir().expect("a folder");
    let url = format!("sqlite://{}/c.db", folder.path().display());
    let mut c = crate::store::Manager::new(&url).expect("a url").open().expect("a database");
    for _ in 0..2 {
        CREDENTIALS.migrate(&mut c).expect("up");
        assert_eq!(table::table.count().get_result::<i64>(&mut c), Ok(0));
        assert_eq!(tenant_key::table.count().get_result::<i64>(&mut c), Ok(0));
        CREDENTIALS.revert(&mut c).expect("down");
        assert!(table::table.count().get_result::<i64>(&mut c).is_err());
    }
}
