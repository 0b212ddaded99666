//! The steps of each kind of job.

use crate::model::{JobKind, ServerStatus, WatchKind};

/// What a step does outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Nothing.
    Nothing,
    /// Makes a server: guarded by token or tag, undone by terminating it.
    Create,
    /// Moves a server that is there to a state: harmless when repeated, but may land late; no undo.
    Move(Operation),
    /// Has a guest run a command: once by the guest's journal; no undo.
    Command,
    /// Waits for the ends of other jobs, which were accepted with it.
    Children,
}

/// Calls on an existing server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Start it.
    Start,
    /// Stop it.
    Stop,
    /// Freeze it.
    Pause,
    /// Destroy it.
    Terminate,
}

impl Operation {
    /// Whether an older call that lands late can take its effect back, so that another round of it makes sense.
    #[must_use]
    pub const fn can_be_taken_back(self) -> bool {
        !matches!(self, Self::Terminate)
    }

    /// The state that proves it.
    #[must_use]
    pub const fn proof(self) -> ServerStatus {
        match self {
            Self::Start => ServerStatus::Running,
            Self::Stop => ServerStatus::Stopped,
            Self::Pause => ServerStatus::Paused,
            Self::Terminate => ServerStatus::Terminated,
        }
    }
}

/// One step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// Its name in rows, tokens and pages.
    pub name: &'static str,
    /// What it does.
    pub effect: Effect,
}

/// Name of the step that takes a created server back.
pub const UNDO: &str = "undo";

impl Step {
    /// Who must see its effect.
    #[must_use]
    pub const fn watch(&self) -> WatchKind {
        match self.effect {
            Effect::Nothing => WatchKind::Noop,
            Effect::Create | Effect::Move(_) => WatchKind::Cloud,
            Effect::Command => WatchKind::Guest,
            Effect::Children => WatchKind::Children,
        }
    }

    /// What must be seen.
    #[must_use]
    pub const fn expectation(&self) -> &'static str {
        match self.effect {
            Effect::Nothing => "nothing",
            Effect::Create => ServerStatus::Running.as_str(),
            Effect::Move(operation) => operation.proof().as_str(),
            Effect::Command => "exit 0",
            Effect::Children => "all complete",
        }
    }
}

/// The step a kind carries out.
#[must_use]
pub const fn step_of(kind: JobKind) -> Step {
    match kind {
        JobKind::Noop => Step { name: "noop", effect: Effect::Nothing },
        JobKind::LaunchServer => Step { name: "create", effect: Effect::Create },
        JobKind::TerminateServer => Step { name: "terminate", effect: Effect::Move(Operation::Terminate) },
        JobKind::StartServer => Step { name: "start", effect: Effect::Move(Operation::Start) },
        JobKind::StopServer => Step { name: "stop", effect: Effect::Move(Operation::Stop) },
        JobKind::PauseServer => Step { name: "pause", effect: Effect::Move(Operation::Pause) },
        JobKind::RunCommand => Step { name: "run", effect: Effect::Command },
        JobKind::Group => Step { name: "children", effect: Effect::Children },
        JobKind::TakeBack => Step { name: "take-back", effect: Effect::Move(Operation::Terminate) },
    }
}
