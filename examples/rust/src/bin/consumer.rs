//! Keeps a view of the GPUs of this node, and prints every change of it.
//!
//! What a device plugin or a scheduler does: list; watch from the list's version; when the stream breaks,
//! resume from the last version seen, so that nothing is missed and nothing comes twice; and list again when
//! the daemon can't go back that far (`OUT_OF_RANGE`).

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use clap::Parser;
use device_api_examples::{Backoff, RECEIVE_BYTES_MAX, TARGET, connect, say, within};
use device_api_proto::native::gpu_service_client::GpuServiceClient;
use device_api_proto::native::{
    EventType, Gpu, ListGpusRequest, WatchGpusRequest, WatchGpusResponse,
};
use tonic::transport::Channel;
use tonic::{Code, Status};

/// Follows the GPUs of this node
#[derive(Debug, Parser)]
struct Args {
    /// Where the daemon listens
    #[arg(long, env = "NVIDIA_DEVICE_API_TARGET", default_value = TARGET)]
    target: String,
    /// End after so many events
    #[arg(long)]
    events: Option<usize>,
}

/// What no repetition would mend.
const FINAL: [Code; 3] = [
    Code::InvalidArgument,
    Code::PermissionDenied,
    Code::Unimplemented,
];

struct Consumer {
    client: GpuServiceClient<Channel>,
    /// What is known: of each GPU (namespace, name) the newest object.
    gpus: BTreeMap<(String, String), Gpu>,
    /// All changes up to this version are in `gpus`; 0: nothing is known yet.
    version: i64,
    /// Events seen.
    events: usize,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let args = Args::parse();
    let client =
        GpuServiceClient::new(connect(&args.target)?).max_decoding_message_size(RECEIVE_BYTES_MAX);
    let mut consumer = Consumer {
        client,
        gpus: BTreeMap::new(),
        version: 0,
        events: 0,
    };
    tokio::select! {
        ended = consumer.run(args.events) => ended,
        interrupted = tokio::signal::ctrl_c() => Ok(interrupted?),
    }
}

impl Consumer {
    /// Follows the daemon over breaks, restarts and expiries.
    async fn run(&mut self, events_max: Option<usize>) -> Result<()> {
        let mut backoff = Backoff::default();
        loop {
            let before = self.version;
            let Err(error) = self.follow(events_max).await else {
                return Ok(());
            };
            // What is no status is ours, as standard output that was closed.
            let status = error.downcast::<Status>()?;
            eprintln!("{}", status.message());
            let code = status.code();
            if code == Code::OutOfRange {
                // What happened meanwhile can't be told one by one any more: start from a new list.
                say(format!("EXPIRED version={}", self.version))?;
                self.version = 0;
                continue;
            }
            if FINAL.contains(&code) {
                return Err(status.into());
            }
            say(format!("ENDED {code:?}"))?;
            if self.version != before {
                backoff = Backoff::default();
            }
            backoff.pause().await;
        }
    }

    /// Lists, where nothing is known yet, and watches. Returns when it has seen enough.
    async fn follow(&mut self, events_max: Option<usize>) -> Result<()> {
        if self.version == 0 {
            self.list().await?;
        }
        say(format!("WATCH after={}", self.version))?;
        // A watch has no deadline. Dropping the stream frees it.
        let request = WatchGpusRequest {
            resource_version: self.version,
            // They move the version on while nothing changes, so that a resume finds it in the history.
            allow_bookmarks: true,
            ..WatchGpusRequest::default()
        };
        let mut stream = self.client.watch_gpus(request).await?.into_inner();
        while events_max.is_none_or(|max| self.events < max) {
            let ended = || Status::unavailable("the stream ended");
            let event = stream.message().await?.ok_or_else(ended)?;
            self.take(event)?;
        }
        Ok(())
    }

    /// Replaces what is known by what is there.
    async fn list(&mut self) -> Result<()> {
        let request = within(ListGpusRequest::default());
        let list = self.client.list_gpus(request).await?.into_inner();
        let (version, count) = (list.resource_version, list.gpus.len());
        say(format!("LIST version={version} gpus={count}"))?;
        let mut gone = std::mem::take(&mut self.gpus);
        for gpu in list.gpus {
            show("GPU", &gpu)?;
            gone.remove(&key(&gpu));
            self.gpus.insert(key(&gpu), gpu);
        }
        for gpu in gone.values() {
            show("GONE", gpu)?;
        }
        self.version = version;
        Ok(())
    }

    /// Applies one event. The version moves only after that: a resume repeats what was not applied.
    fn take(&mut self, event: WatchGpusResponse) -> Result<()> {
        let version = event.resource_version;
        match event.r#type() {
            EventType::Added | EventType::Modified => {
                let gpu = event.gpu.as_ref().context("an event without its GPU")?;
                show(word(event.r#type().as_str_name()), gpu)?;
                self.gpus.insert(key(gpu), gpu.clone());
            }
            EventType::Deleted => {
                let gpu = event.gpu.as_ref().context("an event without its GPU")?;
                show(word(event.r#type().as_str_name()), gpu)?;
                self.gpus.remove(&key(gpu));
            }
            EventType::Bookmark => say(format!("BOOKMARK version={version}"))?,
            // A type that is not known here is skipped; its version counts.
            EventType::Unspecified => {}
        }
        self.version = version;
        self.events += 1;
        Ok(())
    }
}

fn key(gpu: &Gpu) -> (String, String) {
    (gpu.namespace.clone(), gpu.name.clone())
}

/// The last word of an enum's value: `HEALTHY` of `HEALTH_HEALTHY`.
fn word(value: &'static str) -> &'static str {
    value.rsplit('_').next().unwrap_or(value)
}

/// Prints one GPU on one line. Place work on HEALTHY; DEGRADED says in its action what is wrong; UNKNOWN is
/// not healthy.
fn show(what: &str, gpu: &Gpu) -> Result<()> {
    let status = gpu.status.clone().unwrap_or_default();
    let (name, version) = (&gpu.name, gpu.resource_version);
    let (health, action) = (
        word(status.health().as_str_name()),
        status.recommended_action,
    );
    say(format!(
        "{what} {name} version={version} health={health} action={action}"
    ))?;
    Ok(())
}
