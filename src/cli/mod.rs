//! The command line: one type per role and per operator command. Translates what is typed into calls of other rooms
//! and their answers into text; decides nothing itself.

pub mod client;
pub mod jobs;
pub mod table;
