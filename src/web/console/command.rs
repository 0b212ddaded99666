//! The form of a command, made from the catalogue of operations: its fields, what was typed into them as the API takes
//! it, and what happens to a command that is sent now. Pure.

use serde_json::{Map, Value, json};

use super::forms::Filled;
use crate::agents::AgentView;
use crate::model::ServerId;
use crate::web::rest::Problem;
use crate::wire::{Argument, ArgumentType, CATALOGUE, Described};

/// The field besides the arguments of the operation.
pub(super) const DEADLINE: &str = "deadlineSeconds";

/// A field of the form, made from the catalogue.
pub(super) struct Field {
    pub(super) argument: &'static Argument,
    pub(super) kind: String,
    pub(super) value: String,
    /// Bounds of a number; empty for other types.
    pub(super) bounds: Option<(u32, u32)>,
}

/// What was typed, as the API takes it: each argument by its type.
pub(super) fn body(typed: &Filled, server: ServerId) -> Result<Value, Problem> {
    let operation = CATALOGUE.iter().find(|described| described.word == typed.text("op"));
    let operation = operation.filter(|described| described.is_job).ok_or_else(|| {
        Problem::field("op", "this is no operation that can be asked for; choose one of the list")
    })?;
    let mut params = Map::from_iter([("server".to_owned(), json!(server))]);
    for argument in operation.arguments {
        let text = typed.text(argument.name);
        let value = match argument.kind {
            _ if text.trim().is_empty() && !argument.needed => continue,
            ArgumentType::CommandLine => {
                json!(arguments(text).map_err(|said| Problem::field(argument.name, said))?)
            }
            ArgumentType::Whole { .. } => whole(argument.name, text)?,
        };
        params.insert(argument.name.to_owned(), value);
    }
    let mut body = json!({ "kind": operation.word, "params": params });
    if let (false, Some(fields)) = (typed.text(DEADLINE).is_empty(), body.as_object_mut()) {
        fields.insert(DEADLINE.to_owned(), whole(DEADLINE, typed.text(DEADLINE))?);
    }
    Ok(body)
}

fn whole(name: &'static str, text: &str) -> Result<Value, Problem> {
    let number: Result<i64, _> = text.trim().parse();
    number.map(|n| json!(n)).map_err(|_other| {
        let text: String = text.chars().take(40).collect();
        Problem::field(name, format!("this must be a whole number, not \"{text}\""))
    })
}

/// Program and arguments of a typed line: apart by blanks; quotes hold together what is between them. Nothing is
/// expanded: there is no shell.
fn arguments(line: &str) -> Result<Vec<String>, &'static str> {
    let (mut found, mut word, mut quote) = (Vec::new(), None::<String>, None);
    for c in line.chars() {
        match (quote, c) {
            (Some(mark), c) if c == mark => quote = None,
            (None, '"' | '\'') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, c) if c.is_whitespace() => found.extend(word.take()),
            (_, c) => word.get_or_insert_default().push(c),
        }
    }
    found.extend(word);
    match (quote, found.is_empty()) {
        (Some(_), _) => Err("a quote in the command is not closed; close it"),
        (None, true) => Err("this is missing; type a program, and its arguments behind it"),
        (None, false) => Ok(found),
    }
}

pub(super) fn now_or_later(session: Option<Option<&AgentView>>, connected: bool, queue: usize) -> String {
    let line = match queue {
        0 => "nothing stands before it".to_owned(),
        1 => "1 command is not done yet".to_owned(),
        n => format!("{n} commands are not done yet"),
    };
    match (session, connected) {
        (_, true) => format!("The guest is connected now: the command is sent at once; {line}."),
        (Some(_), false) => format!(
            "The guest is away now. The command waits in line, first in, first out, until it expires (its time stands \
             below once it is given); {line}."
        ),
        (None, _) => format!(
            "Whether the guest is connected is not known here: another process holds its session. If it is away, the \
             command waits in line until it expires; {line}."
        ),
    }
}

pub(super) fn fields(described: &'static Described, typed: &Filled) -> Vec<Field> {
    let of = |argument: &'static Argument| {
        let (bounds, usual) = match argument.kind {
            ArgumentType::Whole { least, most, usual } => (Some((least, most)), usual.to_string()),
            ArgumentType::CommandLine => (None, String::new()),
        };
        let text = typed.text(argument.name);
        let value = if text.is_empty() { usual } else { text.to_owned() };
        Field { argument, kind: argument.kind.words(), value, bounds }
    };
    described.arguments.iter().map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::{arguments, body, now_or_later};
    use crate::model::ServerId;
    use crate::web::console::forms::Filled;
    use serde_json::json;

    #[test]
    fn a_line_becomes_arguments_and_nothing_is_expanded() {
        assert_eq!(arguments("  /bin/echo  $HOME *").expect("good"), ["/bin/echo", "$HOME", "*"]);
        assert_eq!(
            arguments("sh -c 'a \"b\"' \"\" x\"y z\"").expect("good"),
            ["sh", "-c", "a \"b\"", "", "xy z"]
        );
        assert!(arguments("").is_err());
        assert!(arguments("a 'b").is_err());
    }

    #[test]
    fn the_form_is_read_by_the_types_of_the_catalogue() {
        let of = |query: &str| body(&Filled::of_query(query).expect("good"), ServerId(7));
        assert_eq!(
            of("op=run-command&argv=ls+-l&timeoutSecs=9&deadlineSeconds=60").expect("good"),
            json!({"kind": "run-command", "params": {"server": 7, "argv": ["ls", "-l"], "timeoutSecs": 9}, "deadlineSeconds": 60})
        );
        for (bad, field) in [
            ("op=rm&argv=ls", "op"),
            ("op=get-agent-data", "op"),
            ("op=run-command&argv=", "argv"),
            ("op=run-command&argv=ls&timeoutSecs=soon", "timeoutSecs"),
            ("op=run-command&argv=ls&deadlineSeconds=x", "deadlineSeconds"),
        ] {
            assert_eq!(of(bad).expect_err(bad).at_fault(), Some(field), "{bad}");
        }
    }
    #[test]
    fn whether_the_guest_is_away_is_said_before_a_command_is_sent() {
        assert!(now_or_later(Some(None), true, 0).contains("connected now"));
        assert!(
            now_or_later(Some(None), false, 2).contains("away now")
                && now_or_later(Some(None), false, 2).contains("2 commands")
        );
        assert!(now_or_later(None, false, 1).contains("not known here"));
    }
}
