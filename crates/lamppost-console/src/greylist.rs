//! The control API's part about the greylist.

use std::net::IpAddr;

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, QueryRejection};
use axum::extract::{Query, State};
use axum::http::StatusCode;
use lamppost_roles::{
    GreylistAnswer, GreylistAttempt, GreylistFilter, GreylistImported, GreylistListing,
    GreylistMemory, GreylistRequest, GreylistStats, GreylistWhy, ManualRow,
};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::Control;
use crate::api::{Failed, nonsense};

/// Triplets on a page unless the client says how many.
const PAGE: u32 = 100;

/// Rows of an import at most; the store answers attempts between two.
const IMPORT_MAX: usize = 1000;

/// Which page of which triplets.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Page {
    after: Option<String>,
    limit: Option<u32>,
    ip: Option<IpAddr>,
    sender: Option<String>,
    recipient: Option<String>,
}

pub(crate) async fn list(
    State(control): State<Control>,
    page: Result<Query<Page>, QueryRejection>,
) -> Result<Json<GreylistListing>, Failed> {
    let Page { after, limit, ip, sender, recipient } = asked(page)?;
    let filter = GreylistFilter { ip, sender, recipient };
    let limit = limit.unwrap_or(PAGE);
    match control.ask_greylist(GreylistRequest::List { after, limit, filter }).await? {
        GreylistAnswer::Listing(listing) => Ok(Json(listing)),
        _ => Err(nonsense()),
    }
}

pub(crate) async fn why(
    State(control): State<Control>,
    attempt: Result<Query<GreylistAttempt>, QueryRejection>,
) -> Result<Json<GreylistWhy>, Failed> {
    match control.ask_greylist(GreylistRequest::Why(asked(attempt)?)).await? {
        GreylistAnswer::Why(why) => Ok(Json(*why)),
        _ => Err(nonsense()),
    }
}

pub(crate) async fn stats(State(control): State<Control>) -> Result<Json<GreylistStats>, Failed> {
    match control.ask_greylist(GreylistRequest::Stats).await? {
        GreylistAnswer::Stats(stats) => Ok(Json(stats)),
        _ => Err(nonsense()),
    }
}

pub(crate) async fn forget(
    State(control): State<Control>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<serde_json::Value>, Failed> {
    forgotten(&control, GreylistRequest::Forget(told(body, "triplets")?)).await
}

pub(crate) async fn manual(State(control): State<Control>) -> Result<Json<Vec<ManualRow>>, Failed> {
    manual_rows(&control, GreylistRequest::Manual).await
}

pub(crate) async fn write_manual(
    State(control): State<Control>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Vec<ManualRow>>, Failed> {
    manual_rows(&control, GreylistRequest::WriteManual(told(body, "manual rows")?)).await
}

pub(crate) async fn forget_manual(
    State(control): State<Control>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<serde_json::Value>, Failed> {
    forgotten(&control, GreylistRequest::ForgetManual(told(body, "manual rows")?)).await
}

async fn manual_rows(
    control: &Control,
    request: GreylistRequest,
) -> Result<Json<Vec<ManualRow>>, Failed> {
    match control.ask_greylist(request).await? {
        GreylistAnswer::Manual(rows) => Ok(Json(rows)),
        _ => Err(nonsense()),
    }
}

/// What a body tells in JSON.
fn told<T: DeserializeOwned>(body: Result<Bytes, BytesRejection>, what: &str) -> Result<T, Failed> {
    let body = body.map_err(|error| Failed(error.status(), error.body_text()))?;
    serde_json::from_slice(&body).map_err(|error| {
        let what = format!("the body names no {what}: {error}");
        Failed(StatusCode::BAD_REQUEST, what)
    })
}

pub(crate) async fn expire(
    State(control): State<Control>,
) -> Result<Json<serde_json::Value>, Failed> {
    forgotten(&control, GreylistRequest::Expire).await
}

pub(crate) async fn import(
    State(control): State<Control>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<GreylistImported>, Failed> {
    let body = body.map_err(|error| Failed(error.status(), error.body_text()))?;
    let rows: Vec<GreylistMemory> = serde_json::from_slice(&body).map_err(|error| {
        let what = format!("the body is no list of what a greylist remembers: {error}");
        Failed(StatusCode::BAD_REQUEST, what)
    })?;
    if rows.len() > IMPORT_MAX {
        let what = format!("{} rows; at most {IMPORT_MAX} are taken at once", rows.len());
        return Err(Failed(StatusCode::BAD_REQUEST, what));
    }
    match control.ask_greylist(GreylistRequest::Import(rows)).await? {
        GreylistAnswer::Imported(imported) => Ok(Json(imported)),
        _ => Err(nonsense()),
    }
}

async fn forgotten(
    control: &Control,
    request: GreylistRequest,
) -> Result<Json<serde_json::Value>, Failed> {
    match control.ask_greylist(request).await? {
        GreylistAnswer::Forgotten(count) => Ok(Json(serde_json::json!({ "forgotten": count }))),
        _ => Err(nonsense()),
    }
}

fn asked<T>(query: Result<Query<T>, QueryRejection>) -> Result<T, Failed> {
    let Query(asked) = query.map_err(|error| Failed(StatusCode::BAD_REQUEST, error.body_text()))?;
    Ok(asked)
}
