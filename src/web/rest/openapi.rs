//! `GET /openapi.json`: what this API is, for programs. It tells nothing of any tenant, so nobody is asked who they are.

use actix_web::HttpResponse;
use actix_web::http::header::CONTENT_TYPE;

/// OpenAPI 3.1.
pub(super) const DOCUMENT: &str = include_str!("openapi.json");

/// The document.
pub(super) async fn document() -> HttpResponse {
    HttpResponse::Ok().insert_header((CONTENT_TYPE, "application/json")).body(DOCUMENT)
}

#[cfg(test)]
pub(super) mod tests {
    use super::DOCUMENT;
    use crate::web::rest::ROUTES;
    use crate::web::testing::Rig;
    use actix_web::test::TestRequest;
    use serde_json::Value;
    use std::collections::BTreeSet;

    fn read() -> Value {
        serde_json::from_str(DOCUMENT).expect("JSON")
    }

    fn target<'a>(document: &'a Value, value: &'a Value) -> &'a Value {
        match value["$ref"].as_str() {
            Some(name) => {
                document.pointer(name.trim_start_matches('#')).unwrap_or_else(|| panic!("{name} is nowhere"))
            }
            None => value,
        }
    }

    fn is(value: &Value, kind: &str) -> bool {
        match kind {
            "object" => value.is_object(),
            "array" => value.is_array(),
            "string" => value.is_string(),
            "integer" => value.is_i64() || value.is_u64(),
            "boolean" => value.is_boolean(),
            "null" => value.is_null(),
            other => panic!("{other} is no type that is used here"),
        }
    }

    fn fields(document: &Value, schema: &Value, value: &Value, at: &str) -> Vec<String> {
        let (Some(object), Some(known)) = (value.as_object(), schema["properties"].as_object()) else {
            return Vec::new();
        };
        let mut wrong = Vec::new();
        for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            if !object.contains_key(name) {
                wrong.push(format!("{at}.{name} is missing"));
            }
        }
        for (name, value) in object {
            match known.get(name) {
                Some(schema) => wrong.extend(faults(document, schema, value, &format!("{at}.{name}"))),
                None => wrong.push(format!("{at}.{name} is not in the document")),
            }
        }
        wrong
    }

    /// Where a value is not as a schema says; the words of JSON Schema that the document uses, no more.
    fn faults(document: &Value, schema: &Value, value: &Value, at: &str) -> Vec<String> {
        let schema = target(document, schema);
        if let Some(choices) = schema["oneOf"].as_array() {
            let fit = choices.iter().filter(|choice| faults(document, choice, value, at).is_empty()).count();
            return if fit == 1 { Vec::new() } else { vec![format!("{at} fits {fit} choices: {value}")] };
        }
        let kinds: Vec<&str> = match &schema["type"] {
            Value::Array(kinds) => kinds.iter().filter_map(Value::as_str).collect(),
            kind => kind.as_str().into_iter().collect(),
        };
        let words = schema["enum"].as_array().is_none_or(|words| words.contains(value));
        let same = schema.get("const").is_none_or(|wanted| wanted == value);
        if !(kinds.is_empty() || kinds.iter().any(|kind| is(value, kind))) || !words || !same {
            return vec![format!("{at} is {value}, wanted {schema}")];
        }
        let mut wrong = fields(document, schema, value, at);
        for item in value.as_array().into_iter().flatten() {
            wrong.extend(faults(document, &schema["items"], item, at));
        }
        wrong
    }

    /// Fails where an answer is not as the document says; `operation` is such as `get /jobs/{id}`.
    pub(in crate::web::rest) fn fits(operation: &str, status: u16, value: &Value) {
        let document = read();
        let (method, path) = operation.split_once(' ').expect("method and path");
        let answer = target(&document, &document["paths"][path][method]["responses"][status.to_string()]);
        let content = answer["content"].as_object().and_then(|kinds| kinds.values().next());
        let schema = &content.unwrap_or_else(|| panic!("{operation} has no answer {status}"))["schema"];
        assert_eq!(faults(&document, schema, value, operation), Vec::<String>::new());
    }

    #[test]
    fn an_answer_that_is_not_as_documented_is_found() {
        let document = read();
        let why = serde_json::json!({"id": 1, "state": "queued", "code": "c"});
        assert_eq!(faults(&document, &document["components"]["schemas"]["Why"], &why, "w").len(), 3);
        let why = serde_json::json!({"id": "1", "state": "done", "code": "c", "text": "t", "since": "s", "until": 1, "x": 1});
        assert_eq!(faults(&document, &document["components"]["schemas"]["Why"], &why, "w").len(), 4);
        let noop = serde_json::json!({"kind": "noop", "params": {"nte": "x"}});
        assert_eq!(faults(&document, &document["components"]["schemas"]["JobRequest"], &noop, "r").len(), 1);
    }

    #[test]
    fn the_document_has_every_route_and_nothing_else() {
        let document = read();
        let routes: BTreeSet<String> =
            ROUTES.iter().map(|(method, path, _)| format!("{} {path}", method.to_lowercase())).collect();
        let mut told = BTreeSet::new();
        for (path, methods) in document["paths"].as_object().expect("paths") {
            told.extend(
                methods.as_object().expect("methods").keys().map(|method| format!("{method} {path}")),
            );
        }
        assert_eq!(told, routes);
        assert_eq!((&document["openapi"], routes.len()), (&"3.1.0".into(), ROUTES.len()));
    }

    #[test]
    fn every_reference_leads_somewhere_and_every_operation_tells_its_body_and_parts() {
        let document = read();
        let mut names = BTreeSet::new();
        for (path, methods) in document["paths"].as_object().expect("paths") {
            for (method, operation) in methods.as_object().expect("methods") {
                assert!(names.insert(operation["operationId"].to_string()), "{path}");
                assert!(operation["summary"].is_string(), "{method} {path}");
                let parameters = operation["parameters"].as_array().cloned().unwrap_or_default();
                let parts: Vec<&str> =
                    path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}')).collect();
                for part in &parts {
                    let named = |p: &&Value| target(&document, p)["name"] == *part;
                    assert!(parameters.iter().any(|p| named(&p)), "{method} {path}: {part}");
                }
                assert_eq!(operation["requestBody"].is_object(), method == "post", "{method} {path}");
                assert!(operation["responses"].as_object().is_some_and(|all| !all.is_empty()), "{path}");
            }
        }
        let mut left = vec![&document];
        while let Some(value) = left.pop() {
            assert!(!target(&document, value).is_null());
            match value {
                Value::Object(fields) => left.extend(fields.values()),
                Value::Array(items) => left.extend(items),
                _ => {}
            }
        }
    }

    #[actix_rt::test]
    async fn the_program_serves_it_and_every_line_of_it() {
        let rig = Rig::new().await;
        let served = rig.send(TestRequest::get().uri("/api/v1/openapi.json")).await;
        assert_eq!((served.status.as_u16(), &served.json), (200, &read()));
        for (method, path, _) in ROUTES.iter().filter(|(_, path, _)| *path != "/openapi.json") {
            let uri = format!(
                "/api/v1{}",
                path.replace("{id}", "1").replace("{server}", "1").replace("{kind}/{key}", "job/1")
            );
            let method = actix_web::http::Method::from_bytes(method.as_bytes()).expect("a method");
            let answer = rig.send(TestRequest::default().method(method.clone()).uri(&uri)).await;
            assert_eq!(answer.status, 403, "{method} {path}: {}", answer.text);
            fits(&format!("{} {path}", method.as_str().to_lowercase()), 403, &answer.json);
        }
    }
}
