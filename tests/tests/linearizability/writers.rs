//! Clients that write: two native providers, an upstream one that reads, changes and writes back, and
//! one that creates and deletes.

use std::collections::HashMap;

use anyhow::{Context as _, Result};
use device_api_proto::{native, upstream};
use device_api_tests::history::{Recorder, Shown as _, now, value};
use device_api_tests::linear::Answer;
use device_api_tests::{Native, Upstream};
use tonic::Code;

use crate::readers::{get, refused};
use crate::{EXTRA, Round, UPSTREAM_TYPE};

const REASON: &str = "Because";

/// Writes a condition of its own again and again; one in eight times the same once more.
pub(crate) async fn native(
    mut client: Native,
    round: Round,
    type_: &'static str,
) -> Result<Recorder> {
    let request = native::RegisterProviderRequest {
        name: type_.to_lowercase(),
        lease_duration: Some(prost_types::Duration {
            seconds: 3600,
            nanos: 0,
        }),
    };
    let lease_id = client.providers.register_provider(request).await?;
    let lease_id = lease_id.into_inner().lease_id;
    let (mut recorder, mut random) = (
        round.recorder(),
        round.random(type_.bytes().map(u64::from).sum()),
    );
    let field = round.names.field(type_).context("no field")?;
    let mut written: HashMap<&String, u64> = HashMap::new();
    let mut count = 0_u64;
    while round.goes_on(&recorder) {
        let name = random.pick(&round.objects);
        let last = written.entry(name).or_default();
        if *last == 0 || !random.once_in(8) {
            count += 1;
            *last = count;
        }
        let message = last.to_string();
        let field = (field, value(2, REASON, &message));
        let request = native::UpdateGpuConditionRequest {
            lease_id: lease_id.clone(),
            name: name.clone(),
            condition: Some(native::Condition {
                r#type: type_.to_owned(),
                status: native::ConditionStatus::False.into(),
                polarity: native::Polarity::TrueIsProblem.into(),
                severity: native::Severity::Info.into(),
                reason: REASON.to_owned(),
                message,
                ..Default::default()
            }),
            ..Default::default()
        };
        let began = now();
        let answer = match client.providers.update_gpu_condition(request).await {
            Ok(gpu) => Answer::Wrote {
                seen: gpu.into_inner().seen(&round.names),
                field: Some(field),
                expected: None,
            },
            Err(status) => refused(&recorder, name, &status)?,
        };
        recorder.note(began, answer);
    }
    Ok(recorder)
}

/// Reads, changes one condition, and writes all of it back if nobody was quicker.
pub(crate) async fn upstream(mut client: Upstream, round: Round) -> Result<Recorder> {
    let (mut recorder, mut random) = (round.recorder(), round.random(200));
    let type_ = UPSTREAM_TYPE;
    let field = round.names.field(type_).context("no field")?;
    let mut count = 0_u64;
    while round.goes_on(&recorder) {
        let name = random.pick(&round.objects);
        let began = now();
        let read = get(&mut client, name).await;
        let mut gpu = match read {
            Ok(gpu) => gpu,
            Err(status) => {
                let answer = refused(&recorder, name, &status)?;
                recorder.note(began, answer);
                continue;
            }
        };
        let seen = gpu.seen(&round.names);
        recorder.note(began, Answer::Read(seen));
        count += 1;
        let message = format!("upstream {count}");
        let field = Some((field, value(2, REASON, &message)));
        let conditions = &mut gpu.status.get_or_insert_default().conditions;
        conditions.retain(|condition| condition.r#type != type_);
        conditions.push(upstream::Condition {
            r#type: type_.to_owned(),
            status: "False".to_owned(),
            reason: REASON.to_owned(),
            message,
            ..Default::default()
        });
        let request = upstream::UpdateGpuStatusRequest {
            gpu: Some(gpu),
            ..Default::default()
        };
        let began = now();
        let expected = seen.version;
        let answer = match client.gpus.update_gpu_status(request).await {
            Ok(gpu) => Answer::Wrote {
                seen: gpu.into_inner().seen(&round.names),
                field,
                expected: Some(expected),
            },
            Err(status) if status.code() == Code::Aborted => Answer::Conflict {
                key: seen.key,
                expected,
            },
            Err(status) => refused(&recorder, name, &status)?,
        };
        recorder.note(began, answer);
    }
    Ok(recorder)
}

/// Creates and deletes objects that are its alone.
pub(crate) async fn creator(mut client: Upstream, round: Round) -> Result<Recorder> {
    let (mut recorder, mut random) = (round.recorder(), round.random(300));
    while round.goes_on(&recorder) {
        let name = *random.pick(&EXTRA);
        let began = now();
        let answer = if random.once_in(2) {
            let request = upstream::CreateGpuRequest {
                gpu: Some(upstream::Gpu {
                    metadata: Some(upstream::ObjectMeta {
                        name: name.to_owned(),
                        ..Default::default()
                    }),
                    spec: Some(upstream::GpuSpec {
                        uuid: format!("GPU-{name}"),
                    }),
                    status: None,
                }),
                ..Default::default()
            };
            client.gpus.create_gpu(request).await.map(|gpu| {
                let seen = gpu.into_inner().seen(&round.names);
                Answer::Wrote {
                    seen,
                    field: None,
                    expected: None,
                }
            })
        } else {
            let request = upstream::DeleteGpuRequest {
                name: name.to_owned(),
                ..Default::default()
            };
            let key = round.names.object(name);
            let deleted = client.gpus.delete_gpu(request).await;
            deleted.map(|_| Answer::Deleted(key))
        };
        let answer = match answer {
            Ok(answer) => answer,
            Err(status) => refused(&recorder, name, &status)?,
        };
        recorder.note(began, answer);
    }
    Ok(recorder)
}
