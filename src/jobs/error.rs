//! Why a job's driver stopped.

use crate::model::JobUid;
use crate::store;

/// A fault that restarting the job's actor may cure.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A row cannot be read or written.
    #[error("rows of job {job}")]
    Store {
        /// The job.
        job: JobUid,
        /// Why.
        #[source]
        source: store::Error,
    },
    /// The stored request of an attempt cannot be opened: the install's key is not the one it was sealed with.
    #[error(
        "the stored request of job {job} cannot be opened; was the key file of the data folder replaced?"
    )]
    Request {
        /// The job.
        job: JobUid,
    },
    /// The job names an account, region, server or cloud that does not exist.
    #[error("job {job} names {what}, which does not exist")]
    Missing {
        /// The job.
        job: JobUid,
        /// What is missing.
        what: String,
    },
}
