//! The UDP socket of a worker: receives and sends many datagrams per system call, and can be woken
//! from other threads.
//!
//! ```text
//!   reserve_datagram --> gso::SendQueue --flush--> mmsg --sendmmsg--> kernel
//!   ReceiveBatch <--receive-- mmsg <--recvmmsg-- kernel
//!   other threads --Wakeup::wake--> Socket::wait
//! ```
//!
//! RULE: knows addresses and bytes only, neither sessions nor protocols.

mod address_pair;
mod cmsg;
mod gso;
mod mmsg;
mod receive_batch;
mod sockaddr;
mod socket;
mod wakeup;

pub(crate) use address_pair::AddressPair;
pub(crate) use socket::Socket;
pub(crate) use wakeup::Wakeup;
