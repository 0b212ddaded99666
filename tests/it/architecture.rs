//! The shape of the house, held by reading its sources: who may know whom, what every room must have, and what
//! nobody may do.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Levels of the rooms; arrows point from a higher level to a lower one.
const LEVELS: &[&[&str]] = &[
    &["model", "crypto"],
    &["config", "ops", "wire", "supervision"],
    &["store"],
    &["mq", "cloud", "km", "agent"],
    &["access", "budget", "agents"],
    &["jobs"],
    &["monitor", "worker", "pinger"],
    &["registry"],
    &["web", "sim"],
    &["boot", "cli"],
];

/// Arrows within a level that were agreed, each with its reason.
const AGREED: &[(&str, &str, &str)] = &[
    ("crypto", "model", "certificates, tags and seals name jobs, guests and points in time by their types"),
    ("supervision", "ops", "restarts are counted, logged and shown as health; ops knows no actor"),
    ("cli", "boot", "a command line chooses what is composed; boot knows no command line"),
];

/// What must stand nowhere in the sources, with the folders where it may.
const BANNED: &[(&str, &[&str], &str)] = &[
    (".do_send(", &["src/supervision/facts"], "it ignores capacity and drops silently"),
    ("from_registry(", &["src/supervision/facts"], "a dead address is kept for ever"),
    ("Supervisor::start(", &["src/supervision/facts"], "actix's own does not survive a panic"),
    ("actix::Supervisor", &["src/supervision/facts"], "actix's own does not survive a panic"),
    (
        "thread::sleep(",
        &["src/supervision/probe.rs", "src/ops/failpoint.rs", "src/store/writer.rs"],
        "it blocks an arbiter",
    ),
    ("block_in_place(", &[], "it panics on a runtime of one thread"),
    ("cancel_future(", &["src/supervision/facts"], "the handle may name a timer of the next life"),
    ("println!(", &["src/cli/"], "only commands write to the terminal"),
    ("eprintln!(", &["src/cli/", "src/main.rs", "src/bin/"], "only commands write to the terminal"),
    ("#[allow(", &[], "exceptions must expire by themselves: use #[expect]"),
    ("std::process::exit(", &["src/ops/", "src/cli/", "src/boot/", "src/main.rs"], "it skips every clean-up"),
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn files(folder: &str, ending: &str) -> Vec<PathBuf> {
    let (mut found, mut open) = (Vec::new(), vec![root().join(folder)]);
    while let Some(folder) = open.pop() {
        for entry in std::fs::read_dir(&folder).expect("a folder of the project") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                open.push(path);
            } else if path.to_string_lossy().ends_with(ending) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

fn shown(path: &Path) -> String {
    path.strip_prefix(root()).expect("below the root").display().to_string()
}

/// The source with comments blanked out and texts emptied, so that only code speaks. Lines keep their numbers.
fn code_of(source: &str) -> String {
    let mut code = String::with_capacity(source.len());
    let mut chars = source.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '/' if chars.peek() == Some(&'/') => {
                for skipped in chars.by_ref() {
                    if skipped == '\n' {
                        code.push('\n');
                        break;
                    }
                }
            }
            '"' => code.push_str(&emptied(&mut chars)),
            // A quote as a character, which opens no text.
            '\'' if chars.clone().take(2).eq(['"', '\'']) => {
                chars.next();
                chars.next();
            }
            _ => code.push(c),
        }
    }
    code
}

/// Takes the rest of a text away: its quotes, and a line's end for each that it held.
fn emptied(chars: &mut impl Iterator<Item = char>) -> String {
    let mut left = String::from('"');
    let mut escaped = false;
    for c in chars.by_ref() {
        match c {
            '\n' => left.push('\n'),
            '"' if !escaped => break,
            _ => {}
        }
        escaped = c == '\\' && !escaped;
    }
    left.push('"');
    left
}

fn level_of(room: &str) -> Option<usize> {
    LEVELS.iter().position(|rooms| rooms.contains(&room))
}

fn room_of(path: &Path) -> Option<String> {
    let inside = path.strip_prefix(root().join("src")).ok()?;
    let first = inside.components().next()?.as_os_str().to_str()?;
    (inside.components().count() > 1 && first != "bin").then(|| first.to_owned())
}

/// How deep the file's module lies below the crate: `src/km/mod.rs` is 1.
fn depth_of(path: &Path) -> usize {
    let inside = path.strip_prefix(root().join("src")).expect("a source");
    let parts = inside.components().count();
    if inside.file_name().is_some_and(|name| name == "mod.rs") { parts - 1 } else { parts }
}

/// Rooms that a piece of code names, through `crate::` or by climbing out with `super::`.
fn rooms_named(code: &str, depth: usize) -> BTreeSet<String> {
    let mut named = BTreeSet::new();
    for (at, _) in code.match_indices("crate::") {
        let rest = &code[at + "crate::".len()..];
        if let Some(group) = rest.strip_prefix('{') {
            named.extend(heads_of(group));
        } else {
            named.insert(word(rest));
        }
    }
    let climb = "super::".repeat(depth);
    for (at, _) in code.match_indices(&climb) {
        if !code[..at].ends_with("super::") {
            named.insert(word(code[at..].trim_start_matches("super::")));
        }
    }
    named
}

fn word(text: &str) -> String {
    text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

/// First words of a `{a::b, c}` group whose opening brace was taken.
fn heads_of(group: &str) -> Vec<String> {
    let (mut heads, mut depth, mut start) = (Vec::new(), 0_usize, true);
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => return heads,
            '}' => depth -= 1,
            ',' if depth == 0 => start = true,
            c if start && !c.is_whitespace() => {
                heads.push(word(&group[at..]));
                start = false;
            }
            _ => {}
        }
    }
    heads
}

#[test]
fn arrows_between_rooms_point_down_only() {
    let mut wrong = Vec::new();
    let mut used = BTreeSet::new();
    for path in files("src", ".rs") {
        let Some(room) = room_of(&path) else { continue };
        let Some(level) = level_of(&room) else {
            wrong.push(format!("{}: room \"{room}\" stands on no level", shown(&path)));
            continue;
        };
        let code = code_of(&std::fs::read_to_string(&path).expect("a source"));
        for other in rooms_named(&code, depth_of(&path)) {
            let Some(below) = level_of(&other).filter(|_| other != room) else { continue };
            let agreed = AGREED.iter().find(|(from, to, _)| *from == room && *to == other);
            used.extend(agreed.map(|(from, to, _)| (*from, *to)));
            if below >= level && agreed.is_none() {
                wrong.push(format!("{}: {room} ({level}) knows {other} ({below})", shown(&path)));
            }
        }
    }
    assert!(wrong.is_empty(), "arrows must point down:\n{}", wrong.join("\n"));
    let idle: Vec<_> = AGREED.iter().filter(|(from, to, _)| !used.contains(&(*from, *to))).collect();
    assert!(idle.is_empty(), "agreed exceptions that nobody needs: {idle:?}");
}

#[test]
fn the_reader_of_sources_sees_arrows_of_every_form() {
    let code = code_of(
        "use crate::{store::Store, web}; // crate::cli\nlet a = \"crate::boot\"; let q = '\"'; use super::super::jobs::X;",
    );
    let named = rooms_named(&code, 2);
    assert_eq!(named, BTreeSet::from(["jobs".to_owned(), "store".to_owned(), "web".to_owned()]));
    assert!(!code.contains("boot") && !code.contains("cli"), "{code}");
    assert_eq!(
        rooms_named("super::x super::super::y", 1),
        BTreeSet::from(["x".to_owned()]).union(&BTreeSet::from(["y".to_owned()])).cloned().collect()
    );
}

#[test]
fn every_room_says_what_it_is_for() {
    let mut wrong = Vec::new();
    for path in files("src", ".rs") {
        let source = std::fs::read_to_string(&path).expect("a source");
        let has_docs = source.trim_start().starts_with("//!");
        let is_face = path.file_name().is_some_and(|name| name == "mod.rs" || name == "lib.rs");
        let is_tests = path.file_name().is_some_and(|name| name == "tests.rs" || name == "testkit.rs");
        if !has_docs && !is_tests {
            wrong.push(format!("{}: no module docs", shown(&path)));
        }
        let first: String = source.lines().take_while(|l| l.starts_with("//!")).collect();
        if is_face && first.len() < 20 {
            wrong.push(format!("{}: says nothing about itself", shown(&path)));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_room_exists_only_when_something_is_in_it_and_the_map_names_it() {
    let map = std::fs::read_to_string(root().join("src/lib.rs")).expect("the map");
    for path in files("src", "mod.rs") {
        let Some(room) = room_of(&path).filter(|_| depth_of(&path) == 1) else { continue };
        assert!(map.contains(&format!("pub mod {room};")), "src/lib.rs does not name {room}");
        let lines = std::fs::read_to_string(&path).expect("a source").lines().count();
        let files = files(&format!("src/{room}"), ".rs").len();
        assert!(lines > 5 || files > 1, "room {room} is empty");
    }
}

#[test]
fn what_is_banned_stands_nowhere() {
    let mut wrong = Vec::new();
    for path in files("src", ".rs") {
        let name = shown(&path);
        let code = code_of(&std::fs::read_to_string(&path).expect("a source"));
        // Measurements of tests may be printed; what runs in a server may not print.
        let shipped = code.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
        let is_test = name.ends_with("/tests.rs") || name.ends_with("/testing.rs");
        for (banned, allowed, why) in BANNED {
            let prints = banned.ends_with("println!(");
            let text = if prints && is_test {
                ""
            } else if prints {
                shipped
            } else {
                &code
            };
            let found = text.match_indices(banned).any(|(at, _)| {
                // `eprintln!(` contains `println!(`.
                !text[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_')
            });
            if found && !allowed.iter().any(|place| name.starts_with(place)) {
                wrong.push(format!("{name}: {banned}: {why}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn no_file_knows_the_machine_it_was_written_on() {
    let here = root().display().to_string();
    let places = ["/home/", "/root/", "/Users/", here.as_str()];
    let mut wrong = Vec::new();
    let own = root().join("tests/it/architecture.rs");
    for folder in ["src", "tests", "migrations", "docs", ".ci"] {
        if !root().join(folder).is_dir() {
            continue;
        }
        for path in files(folder, "").into_iter().filter(|path| *path != own) {
            let Ok(text) = std::fs::read_to_string(&path) else { continue };
            for place in places.iter().filter(|place| text.contains(*place)) {
                wrong.push(format!("{}: {place}", shown(&path)));
            }
        }
    }
    assert!(wrong.is_empty(), "paths of a machine:\n{}", wrong.join("\n"));
}

#[test]
fn every_migration_goes_down_as_well() {
    let ups = files("migrations", "up.sql");
    assert!(ups.len() >= 3, "one set per database: {ups:?}");
    for up in ups {
        let down = up.with_file_name("down.sql");
        let text = std::fs::read_to_string(&down).unwrap_or_default();
        assert!(text.contains("DROP") || text.contains("ALTER"), "{} takes nothing back", shown(&down));
    }
}

/// The actors that the sources define: what `Supervised` is implemented for, outside the room that defines it.
fn supervised_actors() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for path in files("src", ".rs") {
        if shown(&path).starts_with("src/supervision/") {
            continue;
        }
        let code = code_of(&std::fs::read_to_string(&path).expect("a source"));
        for line in code.lines().filter(|line| line.starts_with("impl")) {
            if let Some((_, of)) = line.split_once("Supervised for ") {
                found.insert(word(of));
            }
        }
    }
    found
}

/// Rows of the table of actors in the docs: the cells after the first.
fn table_of_actors() -> BTreeMap<String, Vec<String>> {
    let page = std::fs::read_to_string(root().join("docs/ARCHITECTURE.md")).expect("the page");
    let section = page.split("### Which test shows what of which actor").nth(1).expect("the section");
    let section = section.split("\n## ").next().unwrap_or_default();
    let rows = section.lines().filter(|line| line.starts_with("| `"));
    rows.map(|row| {
        let cells: Vec<String> =
            row.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect();
        (cells[0].trim_matches('`').to_owned(), cells[1..].to_vec())
    })
    .collect()
}

#[test]
fn every_actor_has_tests_for_panic_error_stop_and_giving_up_and_the_docs_name_them() {
    let (actors, table) = (supervised_actors(), table_of_actors());
    assert!(actors.contains("JobActor") && actors.contains("Watcher"), "the test sees actors: {actors:?}");
    let listed: BTreeSet<String> = table.keys().cloned().collect();
    assert_eq!(actors, listed, "actors of the sources, and of the table in docs/ARCHITECTURE.md");
    let mut tests = BTreeSet::new();
    for folder in ["src", "tests"] {
        for path in files(folder, ".rs") {
            let text = std::fs::read_to_string(&path).expect("a source");
            for line in text.lines() {
                let line = line.trim_start();
                if let Some(rest) = line.strip_prefix("async fn ").or_else(|| line.strip_prefix("fn ")) {
                    tests.insert(word(rest));
                }
            }
        }
    }
    for (actor, cells) in table {
        let [_, survives, given_up] = &cells[..] else { panic!("{actor}: {cells:?}") };
        for cell in [survives, given_up] {
            let named: Vec<&str> = cell.split('`').skip(1).step_by(2).collect();
            assert!(!named.is_empty(), "{actor}: no test is named in \"{cell}\"");
            for test in named {
                assert!(tests.contains(test), "{actor}: there is no test {test}");
            }
        }
    }
}

/// The functions of a file: name and body, by its top-level `fn`s.
fn functions(code: &str) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut current: Option<(String, String)> = None;
    for line in code.lines() {
        let head = line
            .trim_start_matches("pub ")
            .trim_start_matches("pub(super) ")
            .trim_start_matches("pub(crate) ");
        if let Some(rest) = head.strip_prefix("fn ") {
            found.extend(current.take());
            current = Some((word(rest), String::new()));
        }
        if let Some((_, body)) = &mut current {
            body.push_str(line);
            body.push('\n');
        }
        if line == "}" {
            found.extend(current.take());
        }
    }
    found.extend(current);
    found
}

/// Whether a body updates rows of table `job`: directly, or through a filter it named before.
fn updates_job(body: &str) -> bool {
    if body.contains("update(job::table") {
        return true;
    }
    let named = body.lines().zip(body.lines().skip(1)).filter_map(|(line, next)| {
        let (name, value) = line.trim().strip_prefix("let ")?.split_once(" =")?;
        let starts = value.contains("job::table") || (value.trim().is_empty() && next.contains("job::table"));
        starts.then(|| name.trim_start_matches("mut ").to_owned())
    });
    let names: Vec<String> = named.collect();
    names
        .iter()
        .any(|name| body.contains(&format!("update({name})")) || body.contains(&format!("update({name}.")))
}

#[test]
fn every_write_to_a_job_names_its_epoch() {
    // A submit has no epoch yet and a cancel is a fact that any node may write.
    let free = ["accept", "cancel_asked"];
    // Queued jobs that nobody owns, many at once: they are put by and woken, and no writer holds an epoch of them.
    let unowned = ["hold_queued", "restate", "wake"];
    let mut seen = BTreeSet::new();
    for path in files("src", ".rs") {
        let name = shown(&path);
        if name.ends_with("tests.rs") {
            continue;
        }
        let code = code_of(&std::fs::read_to_string(&path).expect("a source"));
        let shipped = code.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
        let raw = std::fs::read_to_string(&path).expect("a source").to_lowercase();
        assert!(
            !raw.contains("\"update job "),
            "{name} updates jobs by raw SQL, which this test cannot read"
        );
        for (function, body) in functions(shipped) {
            if !updates_job(&body) {
                continue;
            }
            assert!(name.starts_with("src/store/"), "{name}: {function} writes jobs outside the store");
            seen.insert(function.clone());
            let fenced = body.contains("job::epoch.eq(");
            let rests = body.contains("resting()") || body.contains("held(whose)");
            assert!(
                fenced
                    || free.contains(&function.as_str())
                    || (rests && unowned.contains(&function.as_str())),
                "{name}: {function} writes a job without its epoch in the condition"
            );
        }
    }
    for known in ["guard", "take_over", "end", "quarantine", "cancel_asked"] {
        assert!(seen.contains(known), "the test no longer sees that {known} writes jobs: {seen:?}");
    }
}

#[test]
fn a_panic_unwinds() {
    const { assert!(cfg!(panic = "unwind"), "supervision lives on unwinding") };
    let manifest = std::fs::read_to_string(root().join("Cargo.toml")).expect("the manifest");
    assert!(!manifest.contains("panic = \"abort\""), "no profile may abort");
    assert_eq!(manifest.matches("panic = \"unwind\"").count(), 2, "dev and release say so");
}

#[test]
fn no_test_is_left_out() {
    let word = ["#[ign", "ore"].concat();
    for folder in ["src", "tests"] {
        for path in files(folder, ".rs") {
            let text = std::fs::read_to_string(&path).expect("a source");
            assert!(!text.contains(&word), "{} leaves a test out", shown(&path));
        }
    }
}
