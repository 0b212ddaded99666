//! Counts of states as links to their jobs.

use askama::Template;

use super::words::{self, Look};
use crate::model::JobState;
use crate::model::query::{Field, Query};
use crate::store::provisioning::search::{Counts, WALK};

/// A state as a link to its jobs.
pub(super) struct Facet {
    pub(super) state: &'static str,
    pub(super) look: Look,
    pub(super) count: String,
    pub(super) none: bool,
    pub(super) href: String,
    pub(super) on: bool,
}

/// Counts of all states.
pub(super) struct Facets {
    pub(super) all: String,
    pub(super) all_href: String,
    pub(super) all_on: bool,
    pub(super) states: Vec<Facet>,
    /// What the counts leave out; empty when nothing.
    pub(super) among: String,
}

/// Counts of all states on their own.
#[derive(Template)]
#[template(path = "facets.html")]
pub(super) struct FacetsPart {
    pub(super) facets: Facets,
}

/// The address of a list.
pub(super) fn href(query: &Query) -> String {
    if query.is_empty() {
        return "/jobs".to_owned();
    }
    format!("/jobs?q={}", words::escaped(&query.to_string()))
}

/// What is counted when a list shows `query`: the same in every state.
pub(super) fn counted(query: &Query) -> Query {
    let kept = query.terms.iter().filter(|term| !term.is(Field::State) || term.negated);
    Query { terms: kept.cloned().collect() }
}

impl Facets {
    /// `query` is what the page shows, counts are those of [`counted`].
    pub(super) fn of(counts: &Counts, query: &Query) -> Self {
        let of = |wanted: JobState| {
            counts.states.iter().find(|(word, _)| word == wanted.as_str()).map_or(0, |(_, n)| *n)
        };
        let says = query.says(Field::State);
        let base = counted(query);
        let states = JobState::ALL
            .iter()
            .map(|wanted| {
                let word = wanted.as_str();
                let narrowed = base.clone().and(Field::State, word).unwrap_or_else(|_| base.clone());
                Facet {
                    state: word,
                    look: words::look(*wanted),
                    count: words::about(of(*wanted)),
                    none: of(*wanted) == 0,
                    href: href(&narrowed),
                    on: says.as_deref() == Some(word),
                }
            })
            .collect();
        Self {
            all: words::about(counts.states.iter().map(|(_, n)| n).sum()),
            all_href: href(&base),
            all_on: says.is_none(),
            states,
            among: if counts.whole {
                String::new()
            } else {
                format!("counted among the newest {} jobs", words::count(WALK))
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Facets, FacetsPart, counted, href};
    use crate::model::query::Query;
    use crate::store::provisioning::search::Counts;
    use askama::Template as _;

    fn query(text: &str) -> Query {
        text.parse().unwrap_or_else(|e| panic!("{text}: {e}"))
    }

    #[test]
    fn the_view_is_in_the_address() {
        assert_eq!(href(&query("")), "/jobs");
        assert_eq!(href(&query("state:open \"a&b\"")), "/jobs?q=state:open+a%26b");
        assert_eq!(
            counted(&query("state:open -state:queued kind:noop")).to_string(),
            "-state:queued kind:noop"
        );
    }

    #[test]
    fn counts_link_to_their_jobs_and_keep_what_was_searched() {
        let counts = Counts {
            states: vec![
                ("queued".to_owned(), 1200),
                ("failed".to_owned(), 7),
                ("complete".to_owned(), 10_001),
            ],
            whole: false,
        };
        let html = FacetsPart { facets: Facets::of(&counts, &query("kind:noop state:failed")) }
            .render()
            .expect("renders");
        assert!(html.contains("1,200") && html.contains("over 10,000"), "{html}");
        assert!(html.contains("/jobs?q=kind:noop+state:failed\" aria-current"), "{html}");
        assert!(html.contains("among the newest 10,000"), "{html}");
    }
}
