//! The dated API through the whole listener: shapes, bad input, tenants, repeats.

use std::collections::BTreeSet;

use actix_web::test::TestRequest;
use serde_json::{Value, json};

use super::VERSIONS;
use super::table::{How, TABLE};
use crate::model::Micros;
use crate::web::testing::{Answer, KEY, OTHER, OTHER_SERVER, READER, Rig, SERVER, signed, signed_at};

const V: &str = "2014-07-30";

fn launch(name: &str) -> String {
    json!({"launch": [{
        "product": {"productId": "m1.small"}, "machineImage": {"machineImageId": "4000"}, "budget": "400",
        "dataCenter": {"dataCenterId": "2000"}, "name": name, "description": "d", "owner": 1, "status": "RUNNING",
    }]})
    .to_string()
}

fn keys(value: &Value) -> BTreeSet<&str> {
    value.as_object().map(|o| o.keys().map(String::as_str).collect()).unwrap_or_default()
}

#[actix::test]
async fn every_version_is_listed_without_a_signature_and_serves_every_list() {
    let rig = Rig::new().await;
    let answer = rig.send(TestRequest::get().uri("/api/enstratus")).await;
    assert_eq!(answer.json["current"]["versionId"], "2015-05-25");
    assert_eq!(answer.json["supported"].as_array().map(Vec::len), Some(VERSIONS.len()));
    for version in VERSIONS {
        let path = format!("{version}/infrastructure/Server");
        let answer = rig.call(KEY, "GET", &path, "").await;
        assert_eq!(answer.json["servers"][0]["serverId"], SERVER, "{version}");
    }
    for row in TABLE {
        let answer = rig.call(KEY, "GET", &format!("{V}/{}", row.path), "").await;
        assert_eq!(answer.status, 200, "{}", row.path);
        let list = answer.json[row.collection].as_array().unwrap_or_else(|| panic!("{}", row.path));
        let head = rig.call(KEY, "HEAD", &format!("{V}/{}", row.path), "").await;
        assert_eq!(
            head.headers.get("x-es-count").expect("counted"),
            list.len().to_string().as_str(),
            "{}",
            row.path
        );
        for member in list {
            assert!(!member[row.id].is_null(), "{} without {}", row.path, row.id);
            let id = member[row.id].to_string().replace('"', "");
            let single = rig.call(KEY, "GET", &format!("{V}/{}/{id}", row.path), "").await;
            assert_eq!(single.json[row.collection], json!([member]), "{} {id}", row.path);
        }
        let absent = rig.call(KEY, "GET", &format!("{V}/{}/None", row.path), "").await;
        assert_eq!(absent.status, 404, "{}", row.path);
        assert!(absent.message().contains("lists them"), "{}", absent.message());
    }
    assert_eq!(rig.call(KEY, "GET", &format!("{V}/admin/License"), "").await.json["valid"], true);
}

/// The fields that clients and the recorded answers of the original have, resource by resource.
const FIELDS: &[(&str, &str, &str)] = &[
    (
        "admin/Account",
        "accounts",
        "accountId alertConfiguration billingSystemId cloudSubscription configured customer defaultBudget name owner planId provisioned status subscribed dnsAutomation",
    ),
    (
        "admin/ApiKey",
        "apiKeys",
        "accessKey account activation customer customerManagementKey description name state systemManagementKey user",
    ),
    (
        "admin/BillingCode",
        "billingCodes",
        "billingCodeId budgetState currentUsage customer description financeCode name projectedUsage status",
    ),
    (
        "admin/Customer",
        "customers",
        "accountingCurrency automatedExchangeRates businessName created createdTimestamp customerId status timeZone",
    ),
    ("admin/Group", "groups", "customer description groupId name status roleAssignments"),
    ("admin/Role", "roles", "acl customer description name roleId status"),
    (
        "admin/User",
        "users",
        "accountUserId alphaName billingCodes customer account editable email familyName givenName groups hasCloudAPIAccess hasCloudConsoleAccess status sshPublicKey timeZone userId vmLoginId",
    ),
    (
        "geography/Cloud",
        "clouds",
        "cloudId cloudProviderConsoleURL cloudProviderLogoURL cloudProviderName computeAccessKeyLabel computeAccountNumberLabel computeDelegate computeEndpoint computeSecretKeyLabel documentationLabel name privateCloud status",
    ),
    (
        "geography/Region",
        "regions",
        "cloud customer description jurisdiction name providerId regionId status",
    ),
    ("geography/DataCenter", "dataCenters", "dataCenterId description name providerId region status"),
    (
        "infrastructure/Server",
        "servers",
        "agentVersion architecture budget cloud customer dataCenter description firewalls machineImage name owningGroups owningUser platform product providerId providerProductId privateIpAddresses region serverId startDate status",
    ),
    (
        "infrastructure/MachineImage",
        "images",
        "agentVersion architecture budget cloud creationTimestamp customer description machineImageId name owningAccount owningCloudAccountNumber platform providerId region removable sharable status",
    ),
    (
        "infrastructure/ServerProduct",
        "serverProducts",
        "architecture cloud cpuCount cpuSpeedInMhz currency description diskSizeInGb hourlyRate name platform productId providerProductId providerRegionId ramInMb software",
    ),
];

#[actix::test]
async fn resources_have_the_fields_that_clients_read() {
    let rig = Rig::new().await;
    for (path, collection, fields) in FIELDS {
        let answer = rig.call(KEY, "GET", &format!("{V}/{path}"), "").await;
        let found = keys(&answer.json[collection][0]);
        for field in fields.split(' ') {
            assert!(found.contains(field), "{path} has no {field}: {found:?}");
        }
    }
    let old = rig.call(KEY, "GET", "2012-06-15/admin/Account", "").await;
    assert_eq!(old.json["accounts"][0]["cloudSubscriptionId"]["cloudId"], 1);
    assert!(old.json["accounts"][0]["cloudSubscription"].is_null());
}

#[actix::test]
async fn a_server_has_three_levels_of_detail() {
    let rig = Rig::new().await;
    let path = format!("{V}/infrastructure/Server/{SERVER}");
    let get = async |details: &'static str| {
        let request = signed(KEY, "GET", &path, "").insert_header(("x-es-details", details));
        let answer = rig.send(request).await;
        assert_eq!(answer.status, 200, "{details}");
        answer.json["servers"][0].clone()
    };
    assert_eq!(get("none").await, json!({"serverId": SERVER}));
    let basic = get("basic").await;
    assert_eq!(basic["dataCenter"], json!({"dataCenterId": 2000}));
    assert_eq!(basic["machineImage"], json!({"machineImageId": 4000}));
    assert_eq!(basic["owningUser"]["vmLoginId"], "p500");
    assert_eq!(basic["owningGroups"], json!([{"groupId": 600}]));
    assert_eq!(basic["startDate"], "2013-01-08T21:29:22.733+0000");
    assert!(!keys(&basic).contains("stopDate") && !keys(&basic).contains("publicIpAddress"));
    let extended = get("extended").await;
    assert_eq!(extended["dataCenter"]["name"], "A");
    assert_eq!(extended["region"]["providerId"], "sim-1");
    assert_eq!(extended["owningGroups"][0]["name"], "Operators");
    assert_eq!(extended["product"]["providerProductId"], "m1.small");
    assert_eq!(extended["customer"]["customerId"], 200);
    let request = signed(KEY, "GET", &path, "").insert_header(("x-es-details", "all"));
    assert_eq!(rig.send(request).await.status, 400);
}

#[actix::test]
async fn a_launch_is_a_job_that_runs_until_its_row_ends() {
    let rig = Rig::new().await;
    let answer = rig.call(KEY, "POST", &format!("{V}/infrastructure/Server"), &launch("web")).await;
    assert_eq!(answer.status, 202, "{}", answer.message());
    let id = answer.json["jobs"][0]["jobId"].as_i64().expect("a number");
    assert_eq!(answer.json["jobs"][0]["status"], "RUNNING");
    let path = format!("{V}/admin/Job/{id}");
    assert_eq!(answer.headers.get("location").expect("a link"), format!("/api/enstratus/{path}").as_str());
    let job = rig.call(KEY, "GET", &path, "").await.json["jobs"][0].clone();
    assert_eq!(keys(&job), BTreeSet::from(["jobId", "status", "description", "startDate"]));
    assert_eq!(job["description"], "Launch server web");

    let end = move |state: &'static str, message: Option<&'static str>| {
        move |c: &mut crate::store::AnyConnection| {
            use crate::store::provisioning::schema::job;
            use diesel::prelude::*;
            let set = (
                job::state.eq(state),
                job::ended_at.eq(Some(Micros::wall().0)),
                job::message.eq(message),
                job::server.eq(Some(SERVER)),
                job::why.eq("because"),
            );
            diesel::update(job::table.filter(job::id.eq(id))).set(set).execute(c)
        }
    };
    for (state, message, status, shown) in [
        ("complete", Some("7000"), "COMPLETE", "7000"),
        ("complete", None, "COMPLETE", "7000"),
        ("failed", Some("quota"), "ERROR", "quota"),
        ("cancelled", None, "ERROR", "because"),
        ("unresolved", None, "ERROR", "because"),
    ] {
        rig.write(end(state, message)).await;
        let job = rig.call(KEY, "GET", &path, "").await.json["jobs"][0].clone();
        assert_eq!((&job["status"], &job["message"]), (&json!(status), &json!(shown)), "{state}");
        assert!(job["endDate"].as_str().is_some_and(|at| at.ends_with("+0000")), "{job}");
    }
}

#[actix::test]
async fn servers_are_operated_by_jobs_and_edited_at_once() {
    let rig = Rig::new().await;
    let path = format!("{V}/infrastructure/Server/{SERVER}");
    for (method, query, body, status) in [
        ("PUT", "", r#"{"start":[{}]}"#, 202),
        ("PUT", "", r#"{"stop":[{"reason":"r"}]}"#, 202),
        ("PUT", "", r#"{"pause":[{"serverId":"7000"}]}"#, 202),
        ("PUT", "", r#"{"describeServer":[{"name":"new"}]}"#, 204),
        ("PUT", "", r#"{"assignGroups":[{"owningGroups":[{"groupId":"601"}]}]}"#, 204),
        ("PUT", "", r#"{"assignBudget":[{"budget":"400"}]}"#, 204),
        ("DELETE", "?terminateAfter=3600000", "", 204),
        ("DELETE", "?reason=over", "", 202),
        ("DELETE", "", "", 202),
    ] {
        let answer = rig.call(KEY, method, &format!("{path}{query}"), body).await;
        assert_eq!(answer.status, status, "{method} {query} {body}: {}", answer.message());
    }
    let server = rig.call(KEY, "GET", &path, "").await.json["servers"][0].clone();
    assert_eq!((&server["name"], &server["owningGroups"]), (&json!("new"), &json!([{"groupId": 601}])));
    assert_eq!(server["status"], "RUNNING", "putting the end off never terminates");
    assert!(server["terminateAfter"].is_string());
    let jobs = rig.call(KEY, "GET", &format!("{V}/admin/Job"), "").await;
    let words: Vec<&str> = jobs.json["jobs"]
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|j| j["description"].as_str())
        .collect();
    assert_eq!(
        words,
        ["Terminate 7000", "Terminate 7000", "Pause server 7000", "Stop server 7000", "Start server 7000"]
    );
}

#[actix::test]
async fn billing_codes_are_made_replaced_and_deleted() {
    let rig = Rig::new().await;
    let path = format!("{V}/admin/BillingCode");
    let body = json!({"addBillingCode": [{
        "softQuota": {"value": "10", "currency": "USD"}, "hardQuota": {"value": 20, "currency": "USD"},
        "status": "SUPER", "customer": {"customerId": 900}, "name": "Test", "financeCode": "T", "description": "d",
    }]});
    let answer = rig.call(KEY, "POST", &path, &body.to_string()).await;
    assert_eq!(answer.status, 201, "{}", answer.message());
    let id = answer.json["billingCodes"][0]["billingCodeId"].as_i64().expect("a number");
    let code = rig.call(KEY, "GET", &format!("{path}/{id}"), "").await.json["billingCodes"][0].clone();
    assert_eq!((&code["status"], &code["softQuota"]["value"]), (&json!("ACTIVE"), &json!(10.0)));
    assert_eq!(code["customer"]["customerId"], 200, "the owner is never taken from a body");

    let used = rig.call(KEY, "DELETE", &format!("{path}/400?reason=r"), "").await;
    assert_eq!(used.status, 409, "{}", used.message());
    let replaced = rig.call(KEY, "DELETE", &format!("{path}/400?reason=r&replacementCode={id}"), "").await;
    assert_eq!(replaced.status, 204, "{}", replaced.message());
    assert_eq!(rig.call(KEY, "GET", &format!("{path}/400"), "").await.status, 404);
    let server = rig.call(KEY, "GET", &format!("{V}/infrastructure/Server/{SERVER}"), "").await;
    assert_eq!(server.json["servers"][0]["budget"], id);
}

#[actix::test]
async fn bad_requests_get_a_status_and_a_text_that_names_the_fault() {
    let rig = Rig::new().await;
    let server = "infrastructure/Server";
    let one = format!("{server}/{SERVER}");
    let cases: &[(&str, &str, &str, u16, &str)] = &[
        ("POST", server, "{", 400, "line 1 column 1"),
        ("POST", server, "", 400, "not JSON"),
        ("POST", server, "[]", 400, "launch"),
        ("POST", server, r#"{"lunch":[{}]}"#, 400, "\"lunch\"; known here: launch"),
        ("POST", server, r#"{"launch":[]}"#, 400, "exactly one"),
        ("POST", server, r#"{"launch":[{}]}"#, 400, "launch[0].name: missing"),
        ("POST", &one, r#"{"launch":[{}]}"#, 400, "takes no id"),
        ("PUT", server, r#"{"start":[{}]}"#, 400, "needs the id"),
        ("PUT", "infrastructure/Server/99", r#"{"start":[{}]}"#, 404, "no server 99"),
        ("PUT", "infrastructure/Server/x", r#"{"describeServer":[{"name":"n"}]}"#, 404, "no server x"),
        ("PUT", &one, r#"{"describeServer":[{}]}"#, 400, "give name"),
        ("PUT", &one, r#"{"assignBudget":[{"budget":5}]}"#, 400, "assignBudget[0].budget: no billing code 5"),
        (
            "PUT",
            &one,
            r#"{"assignGroups":[{"owningGroups":[{"groupId":9}]}]}"#,
            400,
            "owningGroups[0].groupId: no group 9",
        ),
        ("PUT", &one, r#"{"assignGroups":[{}]}"#, 400, "owningGroups: missing"),
        ("DELETE", "infrastructure/Server/99", "", 404, "no server 99"),
        ("DELETE", &format!("{one}?terminateAfter=soon"), "", 400, "terminateAfter"),
        ("DELETE", &format!("{one}?terminateAfter=-1"), "", 400, "terminateAfter"),
        ("GET", &format!("{server}?regionId=x"), "", 400, "regionId"),
        ("GET", "infrastructure/MachineImage?registered=maybe", "", 400, "neither true nor false"),
        ("GET", "infrastructure/Nothing", "", 404, "no resource"),
        ("PATCH", server, "{}", 405, "PATCH"),
        ("POST", "geography/Cloud", "{}", 405, "POST"),
        ("POST", "infrastructure/Volume", "{}", 501, "not built"),
        ("POST", "admin/Account", "{}", 501, "not built"),
    ];
    for (method, path, body, status, part) in cases {
        let answer = rig.call(KEY, method, &format!("{V}/{path}"), body).await;
        assert_eq!(answer.status.as_u16(), *status, "{method} {path} {body}: {}", answer.message());
        assert!(answer.message().contains(part), "{method} {path} {body}: {}", answer.message());
        assert!(answer.json["error"]["requestId"].is_string(), "{method} {path}");
    }
    assert_eq!(rig.call(KEY, "GET", "2013-01-01/admin/Job", "").await.status, 404);
    let too_large = format!(r#"{{"launch":[{{"userData":"{}"}}]}}"#, "x".repeat(1024 * 1024));
    let answer = rig.call(KEY, "POST", &format!("{V}/{server}"), &too_large).await;
    assert_eq!((answer.status.as_u16(), answer.message().contains("1048576")), (413, true));
    let deep = "[".repeat(100_000);
    assert_eq!(rig.call(KEY, "POST", &format!("{V}/{server}"), &deep).await.status, 400);
}

#[actix::test]
async fn a_launch_names_the_one_value_that_is_wrong() {
    let rig = Rig::new().await;
    let whole: Value = serde_json::from_str(&launch("web")).expect("JSON");
    for (pointer, value, part) in [
        (
            "/launch/0/machineImage/machineImageId",
            json!(99),
            "launch[0].machineImage.machineImageId: no machine image 99",
        ),
        // Of the other region.
        ("/launch/0/machineImage/machineImageId", json!(4100), "no machine image 4100 in region Simulated 1"),
        ("/launch/0/product/productId", json!("3000"), "product.productId: no product \"3000\""),
        ("/launch/0/dataCenter/dataCenterId", json!("9"), "dataCenter.dataCenterId: no data centre 9"),
        ("/launch/0/budget", json!(1), "budget: no billing code 1"),
        ("/launch/0/name", json!("a\nb"), "launch[0].name"),
        ("/launch/0/name", json!(" "), "launch[0].name"),
        ("/launch/0/name", json!("x".repeat(129)), "at most 128"),
    ] {
        let mut body = whole.clone();
        *body.pointer_mut(pointer).expect("there") = value;
        let answer = rig.call(KEY, "POST", &format!("{V}/infrastructure/Server"), &body.to_string()).await;
        assert_eq!(answer.status, 400, "{pointer}");
        assert!(answer.message().contains(part), "{}", answer.message());
    }
    let jobs = rig.call(KEY, "GET", &format!("{V}/admin/Job"), "").await;
    assert_eq!(jobs.json["jobs"], json!([]), "nothing was accepted");
}

#[actix::test]
async fn callers_without_a_good_signature_are_told_which_part_is_wrong() {
    let rig = Rig::new().await;
    let path = format!("{V}/admin/Job");
    let now = Micros::wall().millis();
    let get = |key: &str, at: i64| signed_at(key, "GET", &path, "", at);
    let bare = || TestRequest::get().uri(&format!("/api/enstratus/{V}/admin/Job"));
    for (request, code, part) in [
        (bare(), "unsigned", "x-esauth-access is missing"),
        (get("NOBODY", now), "unknown-key", "NOBODY"),
        (get(KEY, now - 301_000), "stale", "window of 300 seconds"),
        (get(KEY, now + 301_000), "stale", "server's time"),
        (
            get(KEY, now).insert_header(("x-esauth-timestamp", (now - 1).to_string())),
            "wrong-signature",
            "does not match",
        ),
        (get(KEY, now).insert_header(("x-esauth-timestamp", "soon")), "bad-header", "decimal"),
        (get(KEY, now).insert_header(("user-agent", "other")), "wrong-signature", "User-Agent"),
        (get(KEY, now).append_header(("x-esauth-access", OTHER)), "bad-header", "once"),
        (get(KEY, now).insert_header(("x-esauth-signature", "AAAA")), "wrong-signature", "does not match"),
    ] {
        let answer = rig.send(request).await;
        assert_eq!(
            (answer.status.as_u16(), answer.json["error"]["code"].as_str()),
            (403, Some(code)),
            "{part}"
        );
        assert!(answer.message().contains(part), "{}", answer.message());
    }
    for at in [now - 290_000, now + 290_000] {
        assert_eq!(rig.send(get(KEY, at)).await.status, 200);
        assert_eq!(rig.send(get(KEY, at)).await.status, 200, "reads are never replays");
    }
}

#[actix::test]
async fn a_write_is_done_once() {
    let rig = Rig::new().await;
    let (path, now) = (format!("{V}/infrastructure/Server"), Micros::wall().millis());
    let send = async |body: &str, key: Option<&'static str>, at: i64| -> Answer {
        let request = signed_at(KEY, "POST", &path, body, at);
        rig.send(match key {
            Some(key) => request.insert_header(("idempotency-key", key)),
            None => request,
        })
        .await
    };
    let job = |answer: &Answer| answer.json["jobs"][0]["jobId"].as_i64();
    let first = send(&launch("a"), None, now).await;
    assert_eq!(first.status, 202);
    let replay = send(&launch("a"), None, now).await;
    assert_eq!((replay.status.as_u16(), replay.json["error"]["code"].as_str()), (403, Some("replayed")));
    assert_ne!(job(&send(&launch("a"), None, now + 1).await), job(&first), "signed anew: another job");

    let keyed = send(&launch("k"), Some("key-1"), now).await;
    assert_eq!(keyed.status, 202, "{}", keyed.message());
    for at in [now, now + 2] {
        let again = send(&launch("k"), Some("key-1"), at).await;
        assert_eq!((again.status.as_u16(), job(&again)), (202, job(&keyed)), "at {at}");
    }
    let other = send(&launch("l"), Some("key-1"), now + 3).await;
    assert_eq!(
        (other.status.as_u16(), other.json["error"]["code"].as_str()),
        (409, Some("idempotency-conflict"))
    );
    for bad in ["", "a b", "ü"] {
        let request =
            signed_at(KEY, "POST", &path, &launch("a"), now + 4).insert_header(("idempotency-key", bad));
        assert_eq!(rig.send(request).await.status, 400, "{bad:?}");
    }
    let both = futures_util::future::join_all((0..20).map(|n| send_many(&rig, &path, now + 10 + n))).await;
    assert!(both.iter().all(|answer| answer.status == 202));
    let jobs: BTreeSet<Option<i64>> = both.iter().map(job).collect();
    assert_eq!(jobs.len(), 1, "one key, one job: {jobs:?}");
}

async fn send_many(rig: &Rig, path: &str, at: i64) -> Answer {
    rig.send(signed_at(KEY, "POST", path, &launch("many"), at).insert_header(("idempotency-key", "many")))
        .await
}

#[actix::test]
async fn writes_without_a_job_are_done_once_too() {
    let rig = Rig::new().await;
    let path = format!("{V}/admin/BillingCode");
    let body = r#"{"addBillingCode":[{"name":"n","financeCode":"f"}]}"#;
    let now = Micros::wall().millis();
    let add = async |at: i64| {
        rig.send(signed_at(KEY, "POST", &path, body, at).insert_header(("idempotency-key", "add"))).await
    };
    let (first, again) = (add(now).await, add(now + 1).await);
    assert_eq!((first.status.as_u16(), again.status.as_u16()), (201, 201), "{}", again.message());
    assert_eq!(first.json, again.json);
    let id = first.json["billingCodes"][0]["billingCodeId"].as_i64().expect("a number");
    let one = format!("{path}/{id}");
    let delete = async |at: i64| {
        rig.send(signed_at(KEY, "DELETE", &one, "", at).insert_header(("idempotency-key", "del")))
            .await
            .status
    };
    assert_eq!(
        (delete(now).await.as_u16(), delete(now).await.as_u16(), delete(now + 1).await.as_u16()),
        (204, 204, 204)
    );
    assert_eq!(rig.call(KEY, "DELETE", &one, "").await.status, 404);
    let describe = r#"{"describeServer":[{"name":"n"}]}"#;
    let server = format!("{V}/infrastructure/Server/{SERVER}");
    assert_eq!(rig.send(signed_at(KEY, "PUT", &server, describe, now)).await.status, 204);
    assert_eq!(rig.send(signed_at(KEY, "PUT", &server, describe, now)).await.status, 403, "a replay");
}

#[actix::test]
async fn another_tenant_sees_and_changes_nothing() {
    let rig = Rig::new().await;
    let accepted = rig.call(KEY, "POST", &format!("{V}/infrastructure/Server"), &launch("web")).await;
    assert_eq!(accepted.status, 202);
    for row in TABLE.iter().filter(|row| !matches!(row.path, "geography/Cloud")) {
        let mine = rig.call(KEY, "GET", &format!("{V}/{}", row.path), "").await;
        for member in mine.json[row.collection].as_array().expect("a list") {
            let id = member[row.id].to_string().replace('"', "");
            let path = format!("{V}/{}/{id}", row.path);
            assert_eq!(rig.call(OTHER, "GET", &path, "").await.status, 404, "{path}");
            for write in row.writes.iter().filter(|write| write.how != How::Post) {
                let (method, body) = match write.how {
                    How::Delete => ("DELETE", String::new()),
                    How::Put | How::Post => (
                        "PUT",
                        json!({write.verb: [{
                            "name": "x", "budget": 400, "owningGroups": [{"groupId": 911}],
                        }]})
                        .to_string(),
                    ),
                };
                let answer = rig.call(OTHER, method, &path, &body).await;
                assert!(
                    matches!(answer.status.as_u16(), 404 | 400),
                    "{method} {path} {body}: {}",
                    answer.status
                );
            }
        }
        let theirs = rig.call(OTHER, "GET", &format!("{V}/{}", row.path), "").await;
        let text = theirs.json.to_string();
        assert!(!text.contains("\"customerId\":200"), "{}: {text}", row.path);
    }
    let theirs = rig.call(OTHER, "GET", &format!("{V}/infrastructure/Server"), "").await;
    assert_eq!(theirs.json["servers"][0]["serverId"], OTHER_SERVER);
    // Ids inside bodies: a launch with another tenant's things.
    let answer = rig.call(OTHER, "POST", &format!("{V}/infrastructure/Server"), &launch("steal")).await;
    assert_eq!(answer.status, 400, "{}", answer.message());
    let mine = rig.call(KEY, "GET", &format!("{V}/infrastructure/Server/{SERVER}"), "").await;
    assert_eq!(mine.json["servers"][0]["name"], format!("server-{SERVER}"));
}

#[actix::test]
async fn a_role_grants_exactly_what_it_says() {
    let rig = Rig::new().await;
    for row in TABLE {
        let path = format!("{V}/{}", row.path);
        assert_eq!(rig.call(READER, "GET", &path, "").await.status, 200, "{path}");
        for write in row.writes {
            let (method, path) = match write.how {
                How::Post => ("POST", path.clone()),
                How::Put => ("PUT", format!("{path}/{SERVER}")),
                How::Delete => ("DELETE", format!("{path}/{SERVER}")),
            };
            let body =
                if write.how == How::Delete { String::new() } else { json!({write.verb: [{}]}).to_string() };
            let answer = rig.call(READER, method, &path, &body).await;
            assert_eq!(answer.json["error"]["code"], "not-allowed", "{method} {path} {body}");
        }
    }
}
