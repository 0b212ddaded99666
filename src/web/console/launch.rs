//! What can be asked for with a form: the choice of forms, and the launch of a server.

use actix_web::http::StatusCode;
use actix_web::{HttpRequest, HttpResponse, web};
use askama::Template;
use serde_json::{Map, Value, json};

use super::door::Visitor;
use super::forms::{self, Filled};
use super::frame::{Me, with};
use super::said::Said;
use super::{page, see_other, words};
use crate::access::{Action, Resource, Verb};
use crate::model::JobKind;
use crate::store::provisioning::catalog::{ImageRow, ProductRow};
use crate::store::provisioning::view;
use crate::web::rest::launch::{Catalog, USABLE};
use crate::web::rest::{Problem, submit};
use crate::web::{Fault, State};

/// Fields of the form, by the names the API has for them.
const FIELDS: [&str; 9] =
    ["name", "description", "region", "dataCenter", "product", "image", "budget", "keypair", "userData"];
/// Fields that hold the number of a thing.
const NUMBERS: [&str; 5] = ["region", "dataCenter", "product", "image", "budget"];

/// A thing that can be chosen.
struct Choice {
    id: i64,
    text: String,
    on: bool,
}

#[derive(Template)]
#[template(path = "launch.html")]
struct Launch {
    me: Me,
    once: String,
    said: Said,
    /// Why nothing can be launched; empty when it can.
    refused: String,
    account: String,
    typed: Filled,
    regions: Vec<Choice>,
    data_centers: Vec<Choice>,
    products: Vec<Choice>,
    images: Vec<Choice>,
    budgets: Vec<Choice>,
    command: String,
}

#[derive(Template)]
#[template(path = "new.html")]
struct Choose {
    me: Me,
    may_launch: bool,
    may_run: bool,
}

/// The kinds that have a form.
pub(super) async fn choose(request: HttpRequest, state: web::Data<State>) -> Result<HttpResponse, Fault> {
    with(&request, &state, |visitor| async {
        let visitor = visitor;
        let now = state.store.read(view::now).await?;
        let may = |kind| visitor.principal.can(submit::action(kind));
        let shown = Choose {
            may_launch: may(JobKind::LaunchServer),
            may_run: may(JobKind::RunCommand),
            me: Me::of(&visitor, now, "jobs"),
        };
        Ok(page(StatusCode::OK, &shown)?)
    })
    .await
}

/// The form, filled from the query where it says something.
pub(super) async fn form(request: HttpRequest, state: web::Data<State>) -> Result<HttpResponse, Fault> {
    with(&request, &state, |visitor| async {
        let visitor = visitor;
        let typed = Filled::of_query(request.query_string())?;
        let shown = shown(&state, &visitor, (typed, Said::default(), forms::once())).await?;
        Ok(page(StatusCode::OK, &shown)?)
    })
    .await
}

/// Submits a launch, then shows its job. What is wrong is said at its field, and what was typed stays.
pub(super) async fn submit(
    request: HttpRequest,
    payload: web::Payload,
    state: web::Data<State>,
) -> Result<HttpResponse, Fault> {
    with(&request, &state, |visitor| async {
        let visitor = visitor;
        let typed = Filled::of(&request, payload, &state, &visitor).await?;
        let entry = typed.entry(&request, &visitor)?;
        let once = typed.text("once").to_owned();
        if typed.text("act") == "region" {
            let again = shown(&state, &visitor, (typed, Said::default(), once)).await?;
            return Ok(page(StatusCode::OK, &again)?);
        }
        let body = body(&typed).to_string();
        match submit::put(&state, &visitor.principal, entry, body.as_bytes()).await {
            Ok(job) => Ok(see_other(&format!("/jobs/{}", job.id))),
            Err(problem) => {
                let once = if forms::sent_before(&problem) { forms::once() } else { once };
                let said = Said::of(&problem, &FIELDS);
                let again = shown(&state, &visitor, (typed, said, once)).await?;
                Ok(page(problem.status(), &again)?)
            }
        }
    })
    .await
}

/// What was typed, as the API takes it.
fn body(typed: &Filled) -> Value {
    let mut params = Map::new();
    for field in FIELDS {
        let text = typed.text(field);
        let value = match (text.trim(), text.trim().parse::<i64>()) {
            ("", _) => continue,
            (_, Ok(id)) if NUMBERS.contains(&field) => json!(id),
            // A browser sends the lines of a text apart by CR and LF; a script on a guest wants LF.
            _ if field == "userData" => json!(text.replace("\r\n", "\n")),
            (text, _) => json!(text),
        };
        params.insert(field.to_owned(), value);
    }
    json!({ "kind": "launch-server", "params": params })
}

async fn shown(
    state: &State,
    visitor: &Visitor,
    (typed, said, once): (Filled, Said, String),
) -> Result<Launch, Problem> {
    let who = &visitor.principal;
    who.must(Action::new(Verb::Read, Resource::Cloud))?;
    let (customer, account) = (who.customer, who.account);
    let read = state.store.read(move |c| Ok((submit::all(c, customer, account)?, view::now(c)?)));
    let (catalog, now) = read.await?;
    let refused =
        who.must(submit::action(JobKind::LaunchServer)).err().map(|error| words::plain(&error.to_string()));
    Ok(offered(&catalog, typed, Me::of(visitor, now, "jobs"), (said, once, refused.unwrap_or_default())))
}

fn choices(things: impl Iterator<Item = (i64, String)>, chosen: Option<i64>) -> Vec<Choice> {
    things.map(|(id, text)| Choice { id, text: words::plain(&text), on: chosen == Some(id) }).collect()
}

/// The form with what can be chosen in the region that is on.
fn offered(
    catalog: &Catalog,
    typed: Filled,
    me: Me,
    (said, once, refused): (Said, String, String),
) -> Launch {
    let account = catalog.account.as_ref();
    let usable = |status: &str| USABLE.contains(&status);
    let own = || {
        let of_cloud = catalog.regions.iter().filter(|r| Some(r.cloud) == account.map(|a| a.cloud));
        of_cloud.filter(|r| usable(&r.status))
    };
    let chosen = |field: &str| typed.text(field).parse::<i64>().ok();
    let region = own().find(|r| Some(r.id) == chosen("region")).or(own().next()).map_or(0, |r| r.id);
    let none = "No region of your account's cloud can be used now.".to_owned();
    let refused = if refused.is_empty() && region == 0 { none } else { refused };
    let places = catalog.data_centers.iter().filter(|d| d.region == region && usable(&d.status));
    let products = catalog.products.iter().filter(|p| p.region == region);
    let images = catalog.images.iter().filter(|i| i.region == region && usable(&i.status));
    let budgets = catalog.budgets.iter().filter(|b| usable(&b.status));
    let image = |i: &ImageRow| format!("{} ({}, {})", i.name, i.platform.to_lowercase(), i.architecture);
    let usual = chosen("budget").or(account.map(|account| account.default_budget));
    Launch {
        once,
        said,
        refused,
        account: account.map_or_else(
            || "none".to_owned(),
            |account| words::plain(&format!("{} {}", account.id, account.name)),
        ),
        regions: choices(own().map(|r| (r.id, r.name.clone())), Some(region)),
        data_centers: choices(places.map(|d| (d.id, d.name.clone())), chosen("dataCenter")),
        products: choices(products.map(|p| (p.id, size_of(p))), chosen("product")),
        images: choices(images.map(|i| (i.id, image(i))), chosen("image")),
        budgets: choices(budgets.map(|b| (b.id, format!("{} {}", b.finance_code, b.name))), usual),
        command: command(&typed),
        typed,
        me,
    }
}

fn size_of(product: &ProductRow) -> String {
    format!(
        "{} · {} CPU · {} MB · {} GB · {} {} an hour",
        product.name,
        product.cpu_count,
        product.ram_mb,
        product.disk_gb,
        product.hourly_rate,
        product.currency
    )
}

fn command(typed: &Filled) -> String {
    let mut line = "dispatcher jobs submit launch".to_owned();
    for (field, flag) in [
        ("region", "--region"),
        ("dataCenter", "--data-center"),
        ("product", "--product"),
        ("image", "--image"),
        ("budget", "--budget"),
        ("keypair", "--keypair"),
        ("description", "--description"),
    ] {
        if !typed.text(field).is_empty() {
            line.push_str(&format!(" {flag} {}", words::shell(typed.text(field))));
        }
    }
    let name =
        if typed.text("name").is_empty() { "NAME".to_owned() } else { words::shell(typed.text("name")) };
    words::plain(&format!("{line} -- {name}"))
}

#[cfg(test)]
mod tests {
    use super::{body, command};
    use crate::web::console::forms::Filled;
    use serde_json::json;

    #[test]
    fn what_was_typed_becomes_what_the_api_takes() {
        let typed = Filled::of_query("name=+web-1+&image=4000&region=&userData=a%0D%0Ab&once=1&nonsense=2")
            .expect("good");
        assert_eq!(
            body(&typed),
            json!({"kind": "launch-server", "params": {"name": "web-1", "image": 4000, "userData": "a\nb"}})
        );
        assert_eq!(command(&typed), "dispatcher jobs submit launch --image 4000 -- ' web-1 '");
    }
}
