//! What is refused, in the errors of A2A.

use ::a2a::{A2AError, TypedDetail, errordetails};
use std::collections::HashMap;

use crate::service::Fault;

/// A fault of the mesh before there was a task: its code stands in the details.
pub(super) fn from_mesh(fault: &Fault) -> A2AError {
    let message = fault.to_string();
    let error = match fault.code.as_str() {
        "BAD_REQUEST" | "TOO_LARGE" => A2AError::invalid_params(message),
        _ => A2AError::internal(message),
    };
    let mut more = HashMap::from([("elo.code".to_owned(), fault.code.clone())]);
    more.extend(fault.retry_after_s.map(|wait| ("elo.retry_after_s".to_owned(), wait.to_string())));
    let reason = ::a2a::error_reason(error.code);
    error.with_details(vec![TypedDetail::error_info(reason, errordetails::PROTOCOL_DOMAIN, Some(more))])
}

/// The task is not known to this agent.
pub(super) fn no_task(id: &str) -> A2AError {
    let shown: String = id.chars().take(64).collect();
    let message = format!("no task of this agent has the id {shown:?}: tasks are forgotten 10 minutes after their end");
    A2AError::new(::a2a::error_code::TASK_NOT_FOUND, message)
}
