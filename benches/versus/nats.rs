//! NATS: the server of the package `nats-server`, and async-nats on both ends.

use std::ffi::OsString;
use std::path::PathBuf;

use async_nats::Client;
use futures_lite::StreamExt;

use crate::process::{Process, free_port};
use crate::{Fault, roles};

/// The server's program, where it is installed.
pub fn program() -> Option<OsString> {
    if let Some(named) = std::env::var_os("NATS_SERVER") {
        return Some(named);
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    // Debian puts it where the PATH of users doesn't lead.
    let folders = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/usr/local/sbin".into()]);
    folders.map(|folder: PathBuf| folder.join("nats-server")).find(|file| file.is_file()).map(Into::into)
}

/// A server, with the settings it comes with.
pub struct Server {
    pub process: Process,
    pub url: String,
}

impl Server {
    pub async fn start() -> Result<Self, Fault> {
        let program = program().ok_or("nats-server is not installed")?;
        let port = free_port()?.to_string();
        let arguments = ["-a", "127.0.0.1", "-p", port.as_str()];
        let mut process = Process::program("nats-server", &program, &arguments)?;
        process.line("Server is ready").await?;
        Ok(Self { process, url: format!("127.0.0.1:{port}") })
    }

    /// One that answers, in a process of its own.
    pub async fn responder(&self) -> Result<Process, Fault> {
        let mut process = Process::role("nats", &[&self.url])?;
        process.line("ready ").await?;
        Ok(process)
    }

    pub async fn client(&self) -> Result<Client, Fault> {
        Ok(async_nats::connect(&self.url).await?)
    }
}

/// The role of a responder.
pub async fn respond(url: &str) -> Result<(), Fault> {
    let client = async_nats::connect(url).await?;
    let mut asked = client.subscribe("echo").await?;
    client.flush().await?;
    tokio::spawn(async move {
        while let Some(message) = asked.next().await {
            if let Some(reply) = message.reply
                && client.publish(reply, message.payload).await.is_err()
            {
                break;
            }
        }
    });
    roles::ready(url).await
}
