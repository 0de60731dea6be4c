//! The supplementary groups of who is at the other end of a Unix socket.
//!
//! A crate for one system call: no crate that is well kept wraps `SO_PEERGROUPS`, and what could be
//! had without it (`/proc/PID/status`) tells of whoever has the number *now*, not of who connected.

use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd};

/// Groups that most processes have no more of; with more, the call is made twice.
const GROUPS_AT_FIRST: usize = 32;

/// Groups that a process can have at most (`NGROUPS_MAX` of Linux).
const GROUPS_MAX: usize = 65_536;

/// The supplementary groups that the peer had when it connected (or, of a socket pair, when the pair
/// was made). Its primary group need not be among them.
///
/// # Errors
/// What the system says: `ENOPROTOOPT` of what is no Unix socket, `ENODATA` where nobody is
/// connected.
pub fn peer_groups(socket: impl AsFd) -> io::Result<Vec<u32>> {
    read(socket.as_fd(), GROUPS_AT_FIRST)
}

/// Reads them, with room for `room` at first.
fn read(socket: BorrowedFd<'_>, room: usize) -> io::Result<Vec<u32>> {
    let mut groups = vec![0; room];
    loop {
        match fill(socket, &mut groups) {
            Ok(count) => {
                groups.truncate(count);
                return Ok(groups);
            }
            // Too little room. What was wanted is fixed at the connect, so this comes but once.
            Err((error, wanted))
                if error.raw_os_error() == Some(libc::ERANGE)
                    && wanted > groups.len()
                    && wanted <= GROUPS_MAX =>
            {
                groups.resize(wanted, 0);
            }
            Err((error, _)) => return Err(error),
        }
    }
}

/// How many groups were put into `groups`; with an error, how many there are.
fn fill(socket: BorrowedFd<'_>, groups: &mut [u32]) -> Result<usize, (io::Error, usize)> {
    let too_large = |_| (io::Error::from(io::ErrorKind::InvalidInput), 0);
    let mut bytes = libc::socklen_t::try_from(size_of_val(groups)).map_err(too_large)?;
    // SAFETY: the descriptor is open as long as it is borrowed. The kernel writes `bytes` bytes at
    // most to `groups`, which has as many, and a new length to `bytes`; both live beyond the call,
    // and whatever is written is a valid u32.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERGROUPS,
            groups.as_mut_ptr().cast(),
            &raw mut bytes,
        )
    };
    let count = usize::try_from(bytes).unwrap_or_default() / size_of::<u32>();
    if result == 0 {
        Ok(count.min(groups.len()))
    } else {
        Err((io::Error::last_os_error(), count))
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::unix::net::UnixStream;

    use super::*;

    fn own() -> Vec<u32> {
        let groups = rustix::process::getgroups().expect("own groups");
        let mut groups: Vec<_> = groups.iter().map(|gid| gid.as_raw()).collect();
        groups.sort_unstable();
        groups
    }

    /// With more room than needed, as much, less, and none.
    #[test]
    fn they_are_those_of_the_peer_however_much_room_there_is() {
        let (socket, _peer) = UnixStream::pair().expect("a pair");
        let own = own();
        for room in [GROUPS_AT_FIRST + own.len(), own.len(), own.len() / 2, 0] {
            let mut groups = read(socket.as_fd(), room).expect("groups");
            groups.sort_unstable();
            assert_eq!(groups, own, "room for {room}");
        }
    }

    #[test]
    fn what_has_no_peer_has_no_groups() {
        let tcp = std::net::UdpSocket::bind("127.0.0.1:0").expect("bound");
        peer_groups(&tcp).expect_err("no Unix socket");
        let file = File::open("/dev/null").expect("opened");
        let error = peer_groups(&file).expect_err("no socket");
        assert_eq!(error.raw_os_error(), Some(libc::ENOTSOCK));
    }
}
