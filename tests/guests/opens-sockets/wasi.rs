//! Calls home, and listens.
//!
//! Must come of it: its own condition, which says that nothing of it worked.

use std::net::{TcpListener, TcpStream, ToSocketAddrs as _, UdpSocket};

use device_policy_sdk::types::Decision;

use crate::{Call, Hostile};

#[derive(Default)]
pub(crate) struct Guest;

impl Hostile for Guest {
    fn evaluate(&self, call: &mut Call<'_>) -> Result<Decision, String> {
        let worked = [
            TcpStream::connect("127.0.0.1:22").is_ok(),
            TcpStream::connect("169.254.169.254:80").is_ok(),
            TcpListener::bind("0.0.0.0:0").is_ok(),
            UdpSocket::bind("0.0.0.0:0").is_ok(),
            ("localhost", 80)
                .to_socket_addrs()
                .is_ok_and(|mut found| found.next().is_some()),
        ];
        let worked = worked.iter().filter(|worked| **worked).count();
        Ok(call.each(|me, signal| me.problem(signal).message(format!("{worked} worked"))))
    }
}
