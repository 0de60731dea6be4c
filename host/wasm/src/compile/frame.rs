//! What goes through the pipes between the daemon and its compiler: a request to it, one answer from
//! it. Both have a fixed head, little endian, and a length that is checked before anything is read.

use std::io::{self, Read, Write};

use crate::compile::seal::{Broken, Code, FORMAT, Fields, Key, Seal};

const REQUEST_MAGIC: [u8; 8] = *b"dapi-ask";
const ANSWER_MAGIC: [u8; 8] = *b"dapi-ans";

/// The largest component that any limit lets in: the ceiling of `component-bytes-max`.
pub(super) const COMPONENT_BYTES_CEILING: u64 = 128 << 20;

/// Code that a component may become: three times the largest. Measured: Rust's 0.2 MB make 0.55,
/// JavaScript's 12 MB 33, Python's 18 MB 33. What announces more is not read.
pub(super) const CODE_BYTES_MAX: u64 = 384 << 20;

/// Of an answer that is about no component, since none was read.
pub(super) const NO_KEY: Key = Key {
    engine: [0; 32],
    component: [0; 32],
};

/// Words of a refusal: a log line.
pub(super) const REFUSAL_BYTES_MAX: u64 = 4 << 10;

/// What the compiler is asked, the component's bytes following it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Request {
    /// Who asks, so that the compiler notices when nobody waits any more.
    pub(super) parent: u32,
    /// What it may use beyond what its program takes.
    pub(super) memory_bytes_max: u64,
    /// Length of the component.
    pub(super) bytes: u64,
}

impl Request {
    const LENGTH: usize = 8 + 4 + 4 + 8 + 8;

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(Self::LENGTH);
        out.extend(REQUEST_MAGIC);
        out.extend(FORMAT.to_le_bytes());
        out.extend(self.parent.to_le_bytes());
        out.extend(self.memory_bytes_max.to_le_bytes());
        out.extend(self.bytes.to_le_bytes());
        out
    }

    /// # Errors
    /// Of the pipe; `InvalidData` where it is not of this version, or too long.
    pub(super) fn read(from: &mut impl Read) -> io::Result<Self> {
        let mut head = [0; Self::LENGTH];
        from.read_exact(&mut head)?;
        Self::decode(&head).ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::InvalidData,
                "the request is not of this version",
            )
        })
    }

    fn decode(head: &[u8]) -> Option<Self> {
        let mut fields = Fields(head);
        let is_ours = fields.array()? == REQUEST_MAGIC && fields.u32()? == FORMAT;
        let request = Self {
            parent: fields.u32()?,
            memory_bytes_max: fields.u64()?,
            bytes: fields.u64()?,
        };
        (is_ours && request.bytes <= COMPONENT_BYTES_CEILING).then_some(request)
    }
}

/// How a compilation ended; what follows the head of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Status {
    /// Code follows.
    Code,
    /// No valid component; the engine's words follow.
    Invalid,
    /// The compiler panicked; the panic's words follow.
    Panic,
    /// Memory ran out.
    Memory,
    /// The process could not limit itself, or the engine not be configured.
    Setup,
}

impl Status {
    const ALL: [Self; 5] = [
        Self::Code,
        Self::Invalid,
        Self::Panic,
        Self::Memory,
        Self::Setup,
    ];

    fn number(self) -> u32 {
        match self {
            Self::Code => 0,
            Self::Invalid => 1,
            Self::Panic => 2,
            Self::Memory => 3,
            Self::Setup => 4,
        }
    }

    fn payload_max(self) -> u64 {
        match self {
            Self::Code => CODE_BYTES_MAX,
            Self::Invalid | Self::Panic | Self::Memory | Self::Setup => REFUSAL_BYTES_MAX,
        }
    }
}

/// The head of an answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct AnswerHead {
    status: Status,
    /// The most memory that the process had resident, if it knows.
    pub(super) memory_peak_bytes: u64,
    seal: Seal,
}

/// Why bytes are no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoAnswer {
    Broken(Broken),
    TooLong { bytes: u64, max: u64 },
}

/// An answer that held against its seal.
#[derive(Debug)]
pub(super) enum Answer {
    Code(Code),
    Refusal(Status, String),
}

impl AnswerHead {
    pub(super) const LENGTH: usize = 8 + 4 + 4 + 8 + Seal::LENGTH;

    /// Looks at the first [`Self::LENGTH`] bytes.
    ///
    /// # Errors
    /// They are no head of this version, or announce too much.
    pub(super) fn decode(head: &[u8]) -> Result<Self, NoAnswer> {
        let read = || -> Option<Self> {
            let mut fields = Fields(head);
            let is_ours = fields.array()? == ANSWER_MAGIC && fields.u32()? == FORMAT;
            let number = fields.u32()?;
            let status = Status::ALL
                .into_iter()
                .find(|status| status.number() == number)?;
            let memory_peak_bytes = fields.u64()?;
            let seal = Seal::take(&mut fields)?;
            is_ours.then_some(Self {
                status,
                memory_peak_bytes,
                seal,
            })
        };
        let head = read().ok_or(NoAnswer::Broken(Broken::Header))?;
        let (bytes, max) = (head.seal.bytes, head.status.payload_max());
        if bytes > max {
            return Err(NoAnswer::TooLong { bytes, max });
        }
        Ok(head)
    }

    /// Whether the process gave up before it knew what it was asked about.
    pub(super) fn is_of_no_component(&self) -> bool {
        self.status == Status::Setup || (self.status == Status::Memory && self.seal.key == NO_KEY)
    }

    /// Bytes that follow, at most [`CODE_BYTES_MAX`].
    pub(super) fn payload_bytes(&self) -> usize {
        usize::try_from(self.seal.bytes).unwrap_or(usize::MAX)
    }

    /// `whole` is the head and all that followed it.
    pub(super) fn open(&self, key: &Key, whole: Vec<u8>) -> Result<Answer, Broken> {
        match self.status {
            Status::Code => self.seal.open(key, whole, Self::LENGTH).map(Answer::Code),
            Status::Invalid | Status::Panic | Status::Memory | Status::Setup => {
                let words = whole.get(Self::LENGTH..).ok_or(Broken::Length)?;
                self.seal.check(key, words)?;
                let words = String::from_utf8_lossy(words).into_owned();
                Ok(Answer::Refusal(self.status, words))
            }
        }
    }
}

/// Writes an answer.
///
/// # Errors
/// Of the pipe.
pub(super) fn answer(
    out: &mut impl Write,
    key: Key,
    status: Status,
    memory_peak_bytes: u64,
    payload: &[u8],
) -> io::Result<()> {
    let mut head = Vec::with_capacity(AnswerHead::LENGTH);
    head.extend(ANSWER_MAGIC);
    head.extend(FORMAT.to_le_bytes());
    head.extend(status.number().to_le_bytes());
    head.extend(memory_peak_bytes.to_le_bytes());
    Seal::of(key, payload).put(&mut head);
    out.write_all(&head)?;
    out.write_all(payload)?;
    out.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: Key = Key {
        engine: [1; 32],
        component: [2; 32],
    };

    #[test]
    fn a_request_is_read_back_and_a_longer_one_than_any_limit_is_refused() {
        let request = Request {
            parent: 7,
            memory_bytes_max: 1 << 30,
            bytes: COMPONENT_BYTES_CEILING,
        };
        let bytes = request.encode();
        assert_eq!(Request::read(&mut bytes.as_slice()).unwrap(), request);
        for cut in 0..bytes.len() {
            Request::read(&mut &bytes[..cut]).unwrap_err();
        }
        let longer = Request {
            bytes: COMPONENT_BYTES_CEILING + 1,
            ..request
        };
        Request::read(&mut longer.encode().as_slice()).unwrap_err();
        let mut other = bytes;
        other[8] ^= 1;
        Request::read(&mut other.as_slice()).unwrap_err();
    }

    #[test]
    fn an_answer_is_read_back_and_each_damage_noticed() {
        let mut whole = Vec::new();
        answer(&mut whole, KEY, Status::Code, 5, b"code").unwrap();
        let head = AnswerHead::decode(&whole).unwrap();
        assert_eq!((head.payload_bytes(), head.memory_peak_bytes), (4, 5));
        let Ok(Answer::Code(code)) = head.open(&KEY, whole.clone()) else {
            panic!()
        };
        assert_eq!(code.as_bytes(), b"code");

        for at in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] ^= 0x10;
            let taken =
                AnswerHead::decode(&damaged).map(|head| head.open(&KEY, damaged.clone()).is_ok());
            // What it says of its memory is told as it is.
            let is_peak = (16..24).contains(&at);
            assert_eq!(taken.is_ok_and(|taken| taken), is_peak, "byte {at}");
        }
    }

    #[test]
    fn words_are_shorter_than_code_may_be() {
        let mut whole = Vec::new();
        let words = vec![b'x'; usize::try_from(REFUSAL_BYTES_MAX).unwrap() + 1];
        answer(&mut whole, KEY, Status::Invalid, 0, &words).unwrap();
        let max = REFUSAL_BYTES_MAX;
        let bytes = max + 1;
        assert_eq!(
            AnswerHead::decode(&whole).unwrap_err(),
            NoAnswer::TooLong { bytes, max }
        );
    }
}
