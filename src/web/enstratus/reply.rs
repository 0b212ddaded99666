//! Answers of the dated API.

use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use serde_json::{Map, Value, json};

use crate::store::provisioning::job::JobRow;

/// What a write answers.
#[derive(Debug)]
pub(super) enum Reply {
    /// 202 with the job.
    Job(Value),
    /// 201 with the new thing's number.
    Created(i64),
    /// 204.
    Done,
}

impl Reply {
    pub(super) fn job(row: &JobRow) -> Self {
        Self::Job(super::job::shape(row))
    }
}

/// `{"<collection>": […]}`.
pub(super) fn wrapped(collection: &str, members: Vec<Value>) -> Value {
    Value::Object(Map::from_iter([(collection.to_owned(), Value::Array(members))]))
}

/// Puts a field into an object.
pub(super) fn put(object: &mut Value, name: &str, value: impl Into<Value>) {
    if let Some(fields) = object.as_object_mut() {
        fields.insert(name.to_owned(), value.into());
    }
}

/// 202 with a job, a link to it included.
pub(super) fn accepted(version: &str, job: &Value) -> HttpResponse {
    let location = format!("/api/enstratus/{version}/admin/Job/{}", job.get("jobId").unwrap_or(&Value::Null));
    HttpResponse::build(StatusCode::ACCEPTED)
        .insert_header(("location", location))
        .json(json!({ "jobs": [job] }))
}

/// `{"<field>": id}`, how related objects are shown at the basic level.
pub(super) fn only(field: &str, id: i64) -> Value {
    Value::Object(Map::from_iter([(field.to_owned(), Value::from(id))]))
}
