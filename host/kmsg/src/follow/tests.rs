use std::sync::Mutex;

use device_api_core::device::DeviceInfo;
use device_api_core::ids::DeviceUuid;
use device_api_core::signal::{Observation, Samples};

use super::*;
use crate::source::Stop;
use device_api_core::recovery::Recovery;

#[test]
fn a_record_that_was_read_before_is_not_new() {
    let mut newest = Newest::default();
    let is_new = [Some(0), Some(1), Some(0), Some(1), None, Some(1), Some(7)]
        .map(|number| newest.is_new(number));
    assert_eq!(is_new, [true, true, false, false, true, false, true]);
}

#[derive(Debug, Default)]
struct Told(Mutex<Vec<LogPosition>>);

impl SignalSink for Told {
    fn observe(&self, _: Observation) {}
    fn device_found(&self, _: DeviceInfo, _: Arc<Samples>) {}
    fn sampled(&self, _: &DeviceUuid, _: Arc<Samples>) {}
    fn probing(&self, _: &[DeviceUuid]) {}
    fn probed(&self, _: &DeviceUuid) {}
    fn recovered(&self, _: &DeviceUuid, _: Recovery, _: &str) {}
    fn log_read(&self, position: LogPosition) {
        self.0.lock().unwrap().push(position);
    }
}

#[test]
fn c7_no_position_is_told_within_a_message_of_several_lines() {
    let told = Arc::new(Told::default());
    let shared = Arc::new(Shared::new(Stop::new().unwrap()));
    let (path, sink) = (PathBuf::from("log"), told.clone());
    let mut reader = Reader::new(path, sink, false, shared, BootId::default(), None);
    let at = |offset| LogPosition::File { id: (1, 1), offset };
    let mut read = |text: &str, offset| {
        reader.line(&Line {
            text: text.to_owned(),
            cut: false,
        });
        reader.tell(at(offset));
        told.0.lock().unwrap().last().cloned()
    };
    let begin = "NVRM: The NVIDIA GPU 0000:b3:00.0";
    let end = "NVRM: fallen off the bus and is not responding to commands.";
    assert_eq!(read("noise", 1), Some(at(1)));
    assert_eq!(read(begin, 2), Some(at(1)));
    assert_eq!(read("noise", 3), Some(at(1)));
    assert_eq!(read(end, 4), Some(at(4)));
    // One that is never completed holds nothing up for ever.
    assert_eq!(read(begin, 5), Some(at(4)));
    for look in 1..REST_LOOKS_MAX {
        assert_eq!(read("noise", 5), Some(at(4)), "{look}");
    }
    assert_eq!(read("noise", 6), Some(at(6)));
    // The next has its own time.
    assert_eq!(read(begin, 7), Some(at(6)));
    assert_eq!(read(end, 8), Some(at(8)));
}
