//! The admin ports, asked over a real socket.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use anyhow::{Context as _, Result};

use crate::PATIENCE;

/// Asks for a path: status code and body.
///
/// # Errors
/// Nobody answers at that address, or not in HTTP.
pub fn http(address: &str, path: &str) -> Result<(u16, String)> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let code = answer.split(' ').nth(1).context("no status")?.parse()?;
    let (head, body) = answer.split_once("\r\n\r\n").context("no body")?;
    let is_chunked = "transfer-encoding: chunked";
    if head.to_ascii_lowercase().contains(is_chunked) {
        return Ok((code, joined(body)?));
    }
    Ok((code, body.to_owned()))
}

/// Of chunks, each after its length in hexadecimal; the last is empty.
fn joined(mut chunks: &str) -> Result<String> {
    let mut body = String::new();
    loop {
        let (length, rest) = chunks.split_once("\r\n").context("no chunk")?;
        let length = usize::from_str_radix(length.trim(), 16)?;
        let (chunk, rest) = rest
            .split_at_checked(length)
            .context("a chunk is cut off")?;
        if chunk.is_empty() {
            return Ok(body);
        }
        body.push_str(chunk);
        chunks = rest.strip_prefix("\r\n").context("no end of a chunk")?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_are_joined() {
        let joined = |chunks| joined(chunks).ok();
        assert_eq!(
            joined("3\r\nabc\r\nA\r\n0123456789\r\n0\r\n\r\n").as_deref(),
            Some("abc0123456789")
        );
        assert_eq!(joined("0\r\n\r\n").as_deref(), Some(""));
        for cut in ["", "3\r\nab", "3\r\nabc0\r\n", "x\r\n"] {
            assert_eq!(joined(cut), None, "{cut}");
        }
    }
}
