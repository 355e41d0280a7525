//! What the protocol decides, without sockets, clocks or runtime.
//!
//! [`State`] is one node. Inputs (a peer connected, a checked message, an alarm, a command of the owner) go in with the
//! current time, [`Action`]s come out; the driver in `node/` carries them out. Randomness comes from a seed. So whole
//! meshes run in one test, thousands of times, each time alike: a map that is gone through is a `BTreeMap`, whose order
//! doesn't change from run to run.

pub mod access;
pub mod action;
mod admission;
mod budget;
pub mod calls;
pub mod clock;
pub mod conn_id;
mod dialable;
mod dialback;
mod events;
mod federation;
mod forward;
pub mod handshake;
mod ids;
#[cfg(any(test, fuzzing))]
mod invariants;
mod keyed;
mod keylife;
mod legacy;
#[cfg_attr(not(feature = "dht"), allow(dead_code, reason = "nobody answers its questions"))]
mod lookups;
pub mod origin;
mod own_record;
pub mod peers;
pub mod policy;
mod pressure;
#[cfg_attr(not(feature = "dht"), allow(dead_code, reason = "there is nowhere to publish"))]
mod publish;
mod punch;
pub mod queries;
mod reachability;
mod records;
pub mod redial;
mod relay;
mod relay_rate;
mod sealing;
mod seen;
#[cfg(test)]
mod sim;
mod state;
mod table;
mod task_id;
mod tasks;
pub mod throttle;
mod trackers;
mod trail;
mod view;
#[cfg(test)]
pub mod weight;

pub use action::{Action, CallDone, CallEvent, OnFull, TaskKey, TaskToRun, What};
pub use calls::CallSpec;
pub use clock::Now;
pub use conn_id::ConnId;
pub use dialback::FEATURE as DIALBACK;
pub use keylife::Share;
#[cfg(any(feature = "dht", test, fuzzing))]
pub use lookups::Scope;
pub use lookups::{LookupId, Wanted};
pub use peers::{Arrival, How};
#[cfg(feature = "dht")]
pub use publish::Publication;
pub use punch::FEATURE as PUNCH;
pub use queries::Purpose;
pub use state::{Config, State};
pub use task_id::TaskId;
pub use tasks::ChunkRefused;
