//! From files and the environment to settings, with every mistake named where it was made.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::reference::sections;
use super::{Config, Error};
use crate::model::nearest;

/// First word of variables that override settings.
const PREFIX: &str = "DISPATCHER_";

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A file and its line, where the line is known.
    File(PathBuf, Option<usize>),
    /// A variable of the environment.
    Variable(String),
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(path, Some(line)) => write!(f, "{}:{line}", path.display()),
            Self::File(path, None) => write!(f, "{}", path.display()),
            Self::Variable(name) => write!(f, "environment variable {name}"),
        }
    }
}

/// Settings as they were found: which, from where, and what is wrong with them.
#[derive(Debug, Default)]
pub struct Found {
    /// Every problem; with one, the settings are of no use.
    pub problems: Vec<Error>,
    /// Where each value that is no default came from, by `section.key`.
    pub origins: BTreeMap<String, Origin>,
    /// The settings; those without a value here are the defaults.
    pub config: Config,
}

impl Found {
    /// Reads a file, or every `*.toml` of a folder in the order of their names, later ones winning, then the
    /// environment.
    #[must_use]
    pub fn read(path: Option<&Path>, environment: impl Iterator<Item = (String, String)>) -> Self {
        let mut found = Self::default();
        let mut table = toml::Table::new();
        for file in path.map(|path| found.files(path)).unwrap_or_default() {
            found.file(&file, &mut table);
        }
        found.environment(environment, &mut table);
        if found.problems.is_empty() {
            match Config::deserialize(&table) {
                Ok(config) => found.config = config,
                Err(text) => found.wrong_type(&text),
            }
        }
        if found.problems.is_empty() {
            found.problems = found.config.problems();
        }
        found
    }

    /// Every setting in force: its name, its value as it would stand in a file, and where that came from.
    #[must_use]
    pub fn effective(&self) -> Vec<(String, String, String)> {
        let all = toml::Table::try_from(&self.config).unwrap_or_default();
        let mut shown = Vec::new();
        for section in sections() {
            for key in section.keys {
                let name = format!("{}.{key}", section.name);
                let value = all.get(section.name).and_then(|values| values.get(*key));
                let origin = self.origins.get(&name).map_or_else(|| "default".to_owned(), Origin::to_string);
                shown.push((name, value.map(toml::Value::to_string).unwrap_or_default(), origin));
            }
        }
        shown
    }

    fn files(&mut self, path: &Path) -> Vec<PathBuf> {
        if !path.is_dir() {
            return vec![path.to_owned()];
        }
        let listed = std::fs::read_dir(path).map(|entries| {
            entries
                .filter_map(|entry| Some(entry.ok()?.path()))
                .filter(|path| path.extension() == Some("toml".as_ref()))
        });
        let mut files: Vec<PathBuf> = match listed {
            Ok(files) => files.collect(),
            Err(source) => {
                self.problems.push(Error::Read { path: path.display().to_string(), source });
                return Vec::new();
            }
        };
        files.sort();
        if files.is_empty() {
            let text = "the folder holds no *.toml file".to_owned();
            self.problems.push(Error::Parse { path: path.display().to_string(), text });
        }
        files
    }

    fn file(&mut self, path: &Path, into: &mut toml::Table) {
        let shown = path.display().to_string();
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(source) => return self.problems.push(Error::Read { path: shown, source }),
        };
        let table: toml::Table = match toml::from_str(&text) {
            Ok(table) => table,
            Err(e) => return self.problems.push(Error::Parse { path: shown, text: e.to_string() }),
        };
        for (section, values) in table {
            let at = |key: Option<&str>| Origin::File(path.to_owned(), line_of(&text, &section, key));
            let Some(keys) = self.known_section(&section, &at(None)) else { continue };
            let toml::Value::Table(values) = values else {
                self.problems.push(Error::NoSection { origin: at(None), name: section.clone() });
                continue;
            };
            for (key, value) in values {
                let origin = at(Some(&key));
                if self.known_key((&section, &key), keys, &origin) {
                    self.enter((&section, &key), (value, origin), into);
                }
            }
        }
    }

    fn enter(
        &mut self,
        (section, key): (&str, &str),
        (value, origin): (toml::Value, Origin),
        into: &mut toml::Table,
    ) {
        let values = into.entry(section).or_insert_with(|| toml::Value::Table(toml::Table::new()));
        if let toml::Value::Table(values) = values {
            values.insert(key.to_owned(), value);
        }
        self.origins.insert(format!("{section}.{key}"), origin);
    }

    fn known_section(&mut self, name: &str, origin: &Origin) -> Option<&'static [&'static str]> {
        let sections = sections();
        if let Some(section) = sections.iter().find(|section| section.name == name) {
            return Some(section.keys);
        }
        let names: Vec<&str> = sections.iter().map(|section| section.name).collect();
        let hint = hint(name, &names, "sections");
        self.problems.push(Error::Unknown {
            origin: origin.clone(),
            what: format!("section [{name}]"),
            hint,
        });
        None
    }

    fn known_key(&mut self, (section, key): (&str, &str), keys: &[&str], origin: &Origin) -> bool {
        if keys.contains(&key) {
            return true;
        }
        let what = format!("key {section}.{key}");
        self.problems.push(Error::Unknown { origin: origin.clone(), what, hint: hint(key, keys, "keys") });
        false
    }

    /// Variables `DISPATCHER_<SECTION>_<KEY>`. Other variables with that first word belong to others, unless their second
    /// word is a section.
    fn environment(&mut self, environment: impl Iterator<Item = (String, String)>, into: &mut toml::Table) {
        let sections = sections();
        for (name, text) in environment {
            let Some(rest) = name.strip_prefix(PREFIX).map(str::to_lowercase) else { continue };
            let named = |section: &&super::reference::Section| {
                rest.strip_prefix(section.name).is_some_and(|key| key.starts_with('_'))
            };
            let Some(section) = sections.iter().find(named) else { continue };
            let key = rest.get(section.name.len() + 1..).unwrap_or_default().to_owned();
            let origin = Origin::Variable(name);
            if self.known_key((section.name, &key), section.keys, &origin) {
                let value = section.typed(&key, &text);
                self.enter((section.name, &key), (value, origin), into);
            }
        }
    }

    /// Says whose value has the wrong type: the error ends with the key's path.
    fn wrong_type(&mut self, error: &toml::de::Error) {
        let text = error.to_string();
        let path = text.rsplit_once("in `").map(|(_, path)| path.trim_end().trim_end_matches('`').to_owned());
        let said = text.lines().next().unwrap_or_default().to_owned();
        let key = path.unwrap_or_default();
        match self.origins.get(&key) {
            Some(origin) => self.problems.push(Error::Type { origin: origin.clone(), key, text: said }),
            None => self.problems.push(Error::Parse { path: "settings".to_owned(), text }),
        }
    }
}

fn hint(name: &str, known: &[&str], what: &str) -> String {
    match nearest(name, known) {
        Some(nearest) => format!("did you mean {nearest}?"),
        None => format!("known {what} are {}", known.join(", ")),
    }
}

/// The line where a section begins, or a key of it stands; the first one is 1.
fn line_of(text: &str, section: &str, key: Option<&str>) -> Option<usize> {
    let mut inside = false;
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.split(']').next()) {
            inside = name.trim() == section;
            if inside && key.is_none() {
                return Some(number + 1);
            }
        }
        let name = line.split('=').next().map(str::trim);
        if inside && key.is_some() && name == key {
            return Some(number + 1);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::{Found, Origin};
    use crate::config::Config;

    fn read(text: &str, variables: &[(&str, &str)]) -> Found {
        let file = tempfile::NamedTempFile::new().expect("temp file");
        std::fs::write(file.path(), text).expect("written");
        let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Found::read(Some(file.path()), variables)
    }

    fn said(found: &Found) -> Vec<String> {
        found.problems.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn every_unknown_name_is_told_at_once_with_its_line_and_the_nearest_known_one() {
        let found = read(
            "[jobs]\nmots = 3\n\n[pingr]\nevery_ms = 1\n[node]\nbeat = 5",
            &[("DISPATCHER_JOBS_MOSST", "1")],
        );
        let said = said(&found);
        assert_eq!(said.len(), 4, "{said:?}");
        let told = |text: &str| said.iter().any(|said| said.contains(text));
        assert!(told(":2: unknown key jobs.mots; did you mean most?"), "{said:?}");
        assert!(told(":4: unknown section [pingr]; did you mean pinger?"), "{said:?}");
        assert!(told("key node.beat; did you mean beat_ms?"), "{said:?}");
        assert!(
            told("environment variable DISPATCHER_JOBS_MOSST: unknown key jobs.mosst; did you mean most?"),
            "{said:?}"
        );
    }

    #[test]
    fn the_environment_wins_over_files_and_has_their_types() {
        let variables = [
            ("DISPATCHER_JOBS_MOST", "7"),
            ("DISPATCHER_LISTEN_API", "127.0.0.1:1, [::1]:2"),
            ("DISPATCHER_SIMULATED_QUIET_MS", "50"),
            ("DISPATCHER_QUEUE_PREFIX", "9"),
            ("DISPATCHER_TEST_SEED", "not a setting"),
            ("DISPATCHER_URL", "http://127.0.0.1:3302"),
            ("PATH", "/bin"),
        ];
        let found = read("[jobs]\nmost = 3\nsweep_ms = 9", &variables);
        assert!(found.problems.is_empty(), "{:?}", said(&found));
        assert_eq!((found.config.jobs.most, found.config.jobs.sweep_ms), (7, 9));
        assert_eq!(found.config.listen.api.len(), 2);
        assert_eq!((found.config.simulated.quiet_ms, found.config.queue.prefix.as_str()), (Some(50), "9"));
        assert_eq!(found.origins["jobs.most"], Origin::Variable("DISPATCHER_JOBS_MOST".to_owned()));
        assert!(matches!(&found.origins["jobs.sweep_ms"], Origin::File(_, Some(3))));
        let shown = found.effective();
        let of = |key: &str| shown.iter().find(|(name, ..)| name == key).expect("a setting").clone();
        assert_eq!(of("jobs.most").1, "7");
        assert_eq!(of("jobs.calls").2, "default");
    }

    #[test]
    fn a_wrong_type_names_the_key_where_it_stands_and_what_is_expected() {
        let found = read("[jobs]\nmost = \"many\"", &[]);
        let said = said(&found).join("; ");
        assert!(said.contains(":2: jobs.most") && said.contains("many") && said.contains("usize"), "{said}");
        let found = read("", &[("DISPATCHER_JOBS_MOST", "many")]);
        let said = super::tests::said(&found).join("; ");
        assert!(said.contains("DISPATCHER_JOBS_MOST") && said.contains("jobs.most"), "{said}");
    }

    #[test]
    fn every_section_that_cannot_work_is_told() {
        let found =
            read("[node]\nbeat_ms = 0\n[queue]\nprefix = \"A\"\n[listen]\nops = [\"0.0.0.0:1\"]", &[]);
        assert_eq!(found.problems.len(), 3, "{:?}", said(&found));
    }

    #[test]
    fn a_folder_is_read_in_the_order_of_names_and_later_files_win() {
        let folder = tempfile::tempdir().expect("a folder");
        let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).expect("written");
        let read = || Found::read(Some(folder.path()), std::iter::empty());
        assert!(said(&read()).join("").contains("no *.toml file"));
        write("10-site.toml", "[jobs]\nmost = 3\ncalls = 5");
        write("20-host.toml", "[jobs]\nmost = 4");
        write("notes.txt", "[nonsense");
        let found = read();
        assert!(found.problems.is_empty(), "{:?}", said(&found));
        assert_eq!((found.config.jobs.most, found.config.jobs.calls), (4, 5));
        assert_eq!(Found::read(None, std::iter::empty()).config, Config::default());
    }

    #[test]
    fn what_is_no_section_is_told_as_such() {
        let said = said(&read("jobs = 3", &[])).join("; ");
        assert!(said.contains("jobs stands outside a section"), "{said}");
    }
}
