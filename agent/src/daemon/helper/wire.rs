//! What agent and helper say to each other: packets of a sequenced socket pair, each bounded and
//! strictly parsed on both ends.

use std::{
    ffi::{OsStr, OsString},
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::{
            ffi::{OsStrExt as _, OsStringExt as _},
            process::ExitStatusExt as _,
        },
    },
    process::ExitStatus,
};

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg,
    sendmsg, socketpair,
};

/// Longest packet: arguments and environment of a program together.
pub(super) const MAX_PACKET: usize = 64 * 1024;
/// Most descriptors in a packet.
const MAX_FDS: usize = 3;
/// Most arguments, and most variables, of a program.
const MAX_WORDS: usize = 256;

/// A program to start. With it go its standard input, its standard output, and the socket on which
/// its [`News`] are awaited; when that is closed, the program is killed.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Spawn {
    /// Program (absolute) and arguments.
    pub(super) argv: Vec<OsString>,
    /// Variables besides the fixed ones.
    pub(super) env: Vec<(OsString, OsString)>,
}

impl Spawn {
    /// Two counts, then words that end in NUL, as execve(2) takes them.
    pub(super) fn encode(&self) -> io::Result<Vec<u8>> {
        let count = |len: usize| {
            let count = u16::try_from(len).ok().filter(|_| len <= MAX_WORDS);
            count.ok_or_else(|| io::Error::other("it has too many arguments"))
        };
        let mut packet = Vec::new();
        packet.extend(count(self.argv.len())?.to_le_bytes());
        packet.extend(count(self.env.len())?.to_le_bytes());
        let variables = self.env.iter().flat_map(|(name, value)| [name, value]);
        for word in self.argv.iter().chain(variables) {
            if word.as_bytes().contains(&0) {
                return Err(io::Error::other("an argument holds a NUL"));
            }
            packet.extend(word.as_bytes());
            packet.push(0);
        }
        if packet.len() > MAX_PACKET {
            return Err(io::Error::other("its arguments are longer than 64 KiB"));
        }
        Ok(packet)
    }

    /// The reverse; `None` for what [`Spawn::encode`] does not write.
    pub(super) fn decode(packet: &[u8]) -> Option<Self> {
        let (arguments, rest) = packet.split_first_chunk()?;
        let (variables, rest) = rest.split_first_chunk()?;
        let arguments = usize::from(u16::from_le_bytes(*arguments));
        let variables = usize::from(u16::from_le_bytes(*variables));
        if !(1..=MAX_WORDS).contains(&arguments) || variables > MAX_WORDS {
            return None;
        }
        let words = rest.strip_suffix(&[0])?;
        let words: Vec<OsString> = words
            .split(|byte| *byte == 0)
            .map(|word| OsStr::from_bytes(word).to_owned())
            .collect();
        if words.len() != arguments + 2 * variables {
            return None;
        }
        let mut words = words.into_iter();
        let argv = words.by_ref().take(arguments).collect();
        let mut env = Vec::new();
        while let (Some(name), Some(value)) = (words.next(), words.next()) {
            env.push((name, value));
        }
        Some(Self { argv, env })
    }
}

/// What becomes of a program.
#[derive(Debug)]
pub(super) enum News {
    /// It runs.
    Started,
    /// It could not be started: the system's error number.
    Failed(i32),
    /// It has ended.
    Ended(ExitStatus),
}

impl News {
    pub(super) fn encode(&self) -> [u8; 5] {
        let (kind, number) = match self {
            Self::Started => (b'S', 0),
            Self::Failed(error) => (b'F', *error),
            Self::Ended(status) => (b'E', status.into_raw()),
        };
        let [a, b, c, d] = number.to_le_bytes();
        [kind, a, b, c, d]
    }

    pub(super) fn decode(packet: &[u8]) -> Option<Self> {
        let (kind, number) = packet.split_first()?;
        let number = i32::from_le_bytes(number.try_into().ok()?);
        match kind {
            b'S' => Some(Self::Started),
            b'F' => Some(Self::Failed(number)),
            b'E' => Some(Self::Ended(ExitStatus::from_raw(number))),
            _ => None,
        }
    }
}

/// What is asked about a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Question {
    /// Its program.
    Program,
    /// Whether it has the library of pcscd's clients loaded.
    Cards,
}

/// A number that the answer repeats, what is asked, and the process's ID.
pub(super) fn ask(number: u64, question: Question, pid: i32) -> [u8; 13] {
    let mut packet = [0; 13];
    let (first, second) = packet.split_at_mut(8);
    first.copy_from_slice(&number.to_le_bytes());
    let (first, second) = second.split_at_mut(4);
    first.copy_from_slice(&pid.to_le_bytes());
    second.fill(match question {
        Question::Program => b'P',
        Question::Cards => b'C',
    });
    packet
}

/// The reverse of [`ask`].
pub(super) fn read_ask(packet: &[u8]) -> Option<(u64, Question, i32)> {
    let (number, rest) = packet.split_first_chunk()?;
    let (pid, rest) = rest.split_first_chunk()?;
    let pid = i32::from_le_bytes(*pid);
    let question = match rest {
        b"P" => Question::Program,
        b"C" => Question::Cards,
        _ => return None,
    };
    (pid > 0).then_some((u64::from_le_bytes(*number), question, pid))
}

/// The number, then the path where the program is known, or any word that means yes.
pub(super) fn tell(number: u64, path: Option<&OsStr>) -> Vec<u8> {
    let mut packet = number.to_le_bytes().to_vec();
    packet.extend(path.map_or(&[][..], OsStr::as_bytes));
    packet
}

/// The reverse of [`tell`].
pub(super) fn read_told(packet: &[u8]) -> Option<(u64, Option<OsString>)> {
    let (number, path) = packet.split_first_chunk()?;
    let path = (!path.is_empty()).then(|| OsString::from_vec(path.to_owned()));
    Some((u64::from_le_bytes(*number), path))
}

/// A socket pair that keeps packets apart and says when the other end is gone.
pub(super) fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let flags = SocketFlags::CLOEXEC;
    Ok(socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        flags,
        None,
    )?)
}

/// Sends one packet and descriptors with it.
pub(super) fn send(socket: impl AsFd, packet: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(io::Error::other("more descriptors than a packet takes"));
    }
    sendmsg(
        socket,
        &[IoSlice::new(packet)],
        &mut control,
        SendFlags::NOSIGNAL,
    )?;
    Ok(())
}

/// Takes one packet into `buffer`: its length, 0 when the other end is gone, and the descriptors
/// that came with it.
///
/// # Errors
///
/// When nothing came in time, or more came than fits.
pub(super) fn receive(socket: impl AsFd, buffer: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut slices = [IoSliceMut::new(buffer)];
    let received = rustix::io::retry_on_intr(|| {
        recvmsg(&socket, &mut slices, &mut control, RecvFlags::CMSG_CLOEXEC)
    })?;
    let mut fds = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(passed) = message {
            fds.extend(passed);
        }
    }
    if received
        .flags
        .intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC)
    {
        return Err(io::Error::other("a packet is larger than it may be"));
    }
    Ok((received.bytes, fds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_arrives_as_it_was_sent_and_anything_else_is_nothing() {
        let spawn = Spawn {
            argv: ["/bin/x", "", "a b"].map(OsString::from).to_vec(),
            env: vec![("A".into(), "".into()), ("B".into(), "=".into())],
        };
        let packet = spawn.encode().unwrap();
        assert_eq!(Spawn::decode(&packet), Some(spawn));
        for len in 0..packet.len() {
            assert_eq!(Spawn::decode(packet.get(..len).unwrap()), None, "{len}");
        }
        assert_eq!(Spawn::decode(&[0, 0, 0, 0, 0]), None);
        let long = Spawn {
            argv: vec!["x".repeat(MAX_PACKET).into()],
            env: Vec::new(),
        };
        assert!(long.encode().unwrap_err().to_string().contains("64 KiB"));
    }

    #[test]
    fn questions_and_answers_about_a_process_are_read_strictly() {
        for question in [Question::Program, Question::Cards] {
            let packet = ask(7, question, 4711);
            assert_eq!(read_ask(&packet), Some((7, question, 4711)));
            assert_eq!(read_ask(&ask(7, question, -1)), None);
        }
        assert_eq!(read_ask(b"short"), None);
        let told = tell(7, Some(OsStr::new("/bin/x")));
        assert_eq!(read_told(&told), Some((7, Some("/bin/x".into()))));
        assert_eq!(read_told(&tell(8, None)), Some((8, None)));
        assert!(News::decode(b"E").is_none() && News::decode(b"X\0\0\0\0").is_none());
    }
}
