//! Clients that read: one by one, all at once, and as a watch begins.

use anyhow::{Context as _, Result, bail};
use device_api_proto::{native, upstream};
use device_api_tests::history::{Recorder, Shown as _, now};
use device_api_tests::linear::{Answer, Time};
use device_api_tests::{Native, Upstream};
use tonic::{Code, Status};

use crate::Round;
use crate::witness;

/// What a refusal tells of the object.
pub(crate) fn refused(recorder: &Recorder, name: &str, status: &Status) -> Result<Answer> {
    let key = recorder.names.object(name);
    if status.code() == Code::NotFound {
        return Ok(Answer::Absent(key));
    }
    if status.code() == Code::AlreadyExists {
        return Ok(Answer::Present(key));
    }
    bail!("{name}: {status}")
}

pub(crate) async fn native(mut client: Native, round: Round, stream: u64) -> Result<Recorder> {
    let (mut recorder, mut random) = (round.recorder(), round.random(stream));
    while round.goes_on(&recorder) {
        let began = now();
        if random.once_in(100) {
            start_watch(&mut client, &mut recorder, began).await?;
        } else if random.once_in(5) {
            let list = client.list().await?;
            let version = list.resource_version.unsigned_abs();
            recorder.list(began, version, &list.gpus);
        } else {
            let name = random.pick(&round.objects);
            let request = native::GetGpuRequest {
                name: name.clone(),
                ..Default::default()
            };
            let answer = match client.gpus.get_gpu(request).await {
                Ok(answer) => {
                    let gpu = answer.into_inner().gpu.context("no GPU")?;
                    Answer::Read(gpu.seen(&recorder.names))
                }
                Err(status) => refused(&recorder, name, &status)?,
            };
            recorder.note(began, answer);
        }
    }
    Ok(recorder)
}

/// An exact watch tells the state at its start, perhaps some changes, and then up to which version:
/// all of it is a list of that version.
async fn start_watch(client: &mut Native, recorder: &mut Recorder, began: Time) -> Result<()> {
    let witness = witness::start(client.clone(), recorder.names.clone()).await?;
    let (version, seen) = witness.into_state();
    recorder.note(began, Answer::List { version, seen });
    Ok(())
}

pub(crate) async fn upstream(mut client: Upstream, round: Round, stream: u64) -> Result<Recorder> {
    let (mut recorder, mut random) = (round.recorder(), round.random(stream));
    while round.goes_on(&recorder) {
        let began = now();
        if random.once_in(5) {
            let request = upstream::ListGpusRequest::default();
            let list = client.gpus.list_gpus(request).await?.into_inner();
            let list = list.gpu_list.context("no list")?;
            let version = list.metadata.context("no metadata")?.resource_version;
            recorder.list(began, version.parse()?, &list.items);
        } else {
            let name = random.pick(&round.objects);
            let answer = get(&mut client, name).await;
            let answer = match answer {
                Ok(gpu) => Answer::Read(gpu.seen(&recorder.names)),
                Err(status) => refused(&recorder, name, &status)?,
            };
            recorder.note(began, answer);
        }
    }
    Ok(recorder)
}

pub(crate) async fn get(client: &mut Upstream, name: &str) -> Result<upstream::Gpu, Status> {
    let request = upstream::GetGpuRequest {
        name: name.to_owned(),
        ..Default::default()
    };
    let answer = client.gpus.get_gpu(request).await?.into_inner();
    answer.gpu.ok_or_else(|| Status::internal("no GPU"))
}
