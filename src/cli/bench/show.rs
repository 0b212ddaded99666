//! Figures as tables: each beside its limit, one column for each kind of place, and what history changes.

use std::io::Write;

use super::figures::{Figures, Machine, Run};
use crate::cli::client::Error;
use crate::cli::table;

/// Writes the tables.
pub(super) fn write(out: &mut dyn Write, run: &Run) -> Result<(), Error> {
    let headings = ["FIGURE", "EMBEDDED (SQLITE)", "MARIADB + RABBITMQ"];
    table::write(out, &headings, &rows(run))?;
    let history = history(run);
    if !history.is_empty() {
        writeln!(out)?;
        table::write(out, &["FIGURE", "EMPTY", "WITH HISTORY", "RATIO"], &history)?;
    }
    Ok(())
}

/// A figure's name and how a place shows it; none where it was not measured.
type Line = (&'static str, fn(&Figures, &Machine) -> Option<String>);

const LINES: [Line; 16] = [
    ("raw group commit, one job row", |f, _| Some(format!("{:.0}/s", f.group_commit_rows_per_second?))),
    ("one commit of one job row, alone", |f, m| {
        Some(format!("{:.2} ms{}", f.one_commit_ms?, times(f.one_commit_ms, m.fdatasync_p50_ms, "fdatasync")))
    }),
    ("P1, P2 durable signed submit", |f, _| {
        let raw = times(f.submits_per_second, f.group_commit_rows_per_second, "group commit");
        let (p50, p99) = (f.submit_p50_ms?, f.submit_p99_ms?);
        Some(format!("{:.0}/s{raw}, p50 {p50:.1}, p99 {p99:.1} ms", f.submits_per_second?))
    }),
    ("P3 one client, submit to 202", |f, m| {
        let disk = times(f.one_client_p50_ms, m.fdatasync_p50_ms, "fdatasync");
        let commit = times(f.one_client_p50_ms, f.one_commit_ms, "one commit");
        Some(format!("p50 {:.2} ms{disk}{commit}", f.one_client_p50_ms?))
    }),
    ("P4, P5 end to end", |f, _| {
        let raw = times(f.end_to_end_per_second, f.group_commit_rows_per_second, "group commit");
        let asked = f.statements_per_job.map_or_else(String::new, |n| format!(", {n:.1} statements a job"));
        Some(format!("{:.0} jobs/s{raw}{asked}", f.end_to_end_per_second?))
    }),
    ("P6 submit to complete at 50/s", |f, _| {
        Some(format!("p50 {:.1} ms, p99 {:.1} ms", f.paced_p50_ms?, f.paced_p99_ms?))
    }),
    ("P7 idle memory", |f, _| Some(format!("{:.1} MB", f.idle_memory_kib? / 1024.0))),
    ("P7 memory of an open job", |f, _| {
        let working = f.working_job_bytes.map_or_else(String::new, |b| format!(", {b:.0} with an actor"));
        Some(format!("{:.0} bytes ({:.0} open){working}", f.open_job_bytes?, f.open_jobs?))
    }),
    ("P7 memory of a connected guest", |f, _| {
        Some(format!("{:.1} KiB ({:.0} guests)", f.guest_bytes? / 1024.0, f.guests?))
    }),
    ("P8 start, new folder", |f, _| Some(format!("{:.0} ms", f.start_ms?))),
    ("P8 start, existing folder", |f, _| Some(format!("{:.0} ms", f.restart_ms?))),
    ("P8 start, with open jobs", |f, _| Some(format!("{:.0} ms", f.restart_open_ms?))),
    ("P11 takeover after a kill", |f, _| {
        let (p50, p99, jobs) = (f.takeover_p50_ms?, f.takeover_p99_ms?, f.takeover_jobs?);
        let ended = f.takeover_ended_p99_ms?;
        Some(format!("p50 {p50:.0}, p99 {p99:.0} ms ({jobs:.0} jobs; ended p99 {ended:.0} ms)"))
    }),
    ("P12 cancel from another node", |f, _| {
        let (asked, not) = (f.cancels?, f.cancels_not_reached?);
        Some(match (f.cancel_p50_ms, f.cancel_p95_ms) {
            (Some(p50), Some(p95)) => {
                format!("p50 {p50:.0}, p95 {p95:.0} ms ({asked:.0} asked, {not:.0} not reached)")
            }
            _ => format!("not reached ({asked:.0} asked)"),
        })
    }),
    ("P13 lists and searches", |f, _| {
        Some(format!("p50 {:.1}, p99 {:.1} ms", f.page_p50_ms?, f.page_p99_ms?))
    }),
    ("P15 memory of a guest's agent", |f, _| Some(format!("{:.1} MB", f.agent_kib? / 1024.0))),
];

/// A figure in multiples of its limit; nothing where one of them is missing.
fn times(figure: Option<f64>, limit: Option<f64>, what: &str) -> String {
    match (figure, limit) {
        (Some(figure), Some(limit)) if limit > 0.0 => format!(" = {:.2} x {what}", figure / limit),
        _ => String::new(),
    }
}

fn rows(run: &Run) -> Vec<Vec<String>> {
    let m = &run.machine;
    let mut rows = Vec::new();
    let mut add = |what: &str, embedded: Option<String>, servers: Option<String>| {
        if embedded.is_some() || servers.is_some() {
            let cell = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
            rows.push(vec![what.to_owned(), cell(embedded), cell(servers)]);
        }
    };
    let disk = m.fdatasync_per_second.zip(m.fdatasync_p50_ms);
    add("4 KiB write + fdatasync", disk.map(|(rate, p50)| format!("{rate:.0}/s, p50 {p50:.2} ms")), None);
    let broker = m.broker_one_per_second.zip(m.broker_many_per_second);
    let shown = broker.map(|(one, many)| format!("{one:.0}/s one, {many:.0}/s a hundred in flight"));
    add("broker, publish + confirm", None, shown);
    for (what, cell) in LINES {
        add(what, cell(&run.embedded, m), cell(&run.servers, m));
    }
    let sizes = m.program_mb.zip(m.agent_program_mb);
    add(
        "P15 executable, and the guest's",
        sizes.map(|(own, agent)| format!("{own:.1} MB, {agent:.1} MB")),
        None,
    );
    rows
}

/// Figures that history must not change, and whether less is better.
type Compared = (&'static str, fn(&Figures) -> Option<f64>, &'static str);

const COMPARED: [Compared; 6] = [
    ("submit, 64 clients", |f| f.submits_per_second, "/s"),
    ("end to end", |f| f.end_to_end_per_second, " jobs/s"),
    ("submit to complete at 50/s, p50", |f| f.paced_p50_ms, " ms"),
    ("submit to complete at 50/s, p99", |f| f.paced_p99_ms, " ms"),
    ("lists and searches, p50", |f| f.page_p50_ms, " ms"),
    ("lists and searches, p99", |f| f.page_p99_ms, " ms"),
];

fn history(run: &Run) -> Vec<Vec<String>> {
    let places = [
        ("SQLite", &run.embedded, &run.embedded_with_history),
        ("MariaDB", &run.servers, &run.servers_with_history),
    ];
    let mut rows = Vec::new();
    for (place, empty, full) in places {
        for (what, figure, unit) in COMPARED {
            let Some(after) = figure(full) else { continue };
            let shown =
                |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |v| format!("{v:.1}{unit}"));
            let ratio = figure(empty).filter(|before| *before > 0.0);
            let ratio = ratio.map_or_else(|| "-".to_owned(), |before| format!("{:.2}", after / before));
            rows.push(vec![format!("{place}: {what}"), shown(figure(empty)), shown(Some(after)), ratio]);
        }
        if let (Some(jobs), Some(seconds)) = (full.history, full.history_seconds) {
            let text = format!("{place}: finished jobs, filled in {seconds:.0} s");
            rows.push(vec![text, "0".to_owned(), format!("{jobs:.0}"), "-".to_owned()]);
        }
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::super::figures::Run;

    #[test]
    fn each_figure_stands_beside_its_limit_and_what_was_not_measured_is_said() {
        let mut run = Run::default();
        run.machine.fdatasync_p50_ms = Some(0.1);
        run.embedded.one_client_p50_ms = Some(0.3);
        run.servers.cancels = Some(3.0);
        run.servers.cancels_not_reached = Some(3.0);
        run.servers_with_history.end_to_end_per_second = Some(900.0);
        run.servers.end_to_end_per_second = Some(1000.0);
        let mut out = Vec::new();
        super::write(&mut out, &run).expect("memory");
        let shown = String::from_utf8(out).expect("text");
        assert!(shown.contains("p50 0.30 ms = 3.00 x fdatasync"), "{shown}");
        assert!(shown.contains("-                               not reached (3 asked)"), "{shown}");
        assert!(shown.contains("MariaDB: end to end  1000.0 jobs/s  900.0 jobs/s  0.90"), "{shown}");
        assert!(!shown.contains("P8"), "{shown}");
    }
}
