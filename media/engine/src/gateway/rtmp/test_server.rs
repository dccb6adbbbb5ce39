//! Starts an RTMP server for the tests of this folder.

use std::net::SocketAddr;
use std::sync::Arc;

use headwater_api::documents::AppDocument;
use headwater_api::{StreamName, config};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::test_client::Client;
use super::{Server, Services};
use crate::access::Access;
use crate::events::EventBus;
use crate::hub::{Hub, Limits, Stream};
use crate::node::admission::Admission;
use crate::runtime::client_pool::SharePolicy;
use crate::runtime::worker_pool::WorkerPool;

/// A server on a port of its own, with a hub of its own.
pub(super) struct TestServer {
    pub(super) address: SocketAddr,
    pub(super) tls_address: Option<SocketAddr>,
    pub(super) hub: Hub,
    pub(super) access: Access,
    /// Makes the node refuse new publishers and viewers.
    pub(super) refuse_new: CancellationToken,
    pub(super) drain: CancellationToken,
    pub(super) task: JoinHandle<()>,
}

pub(super) fn start_server(max_connections: usize, tls: Option<Arc<rustls::ServerConfig>>) -> TestServer {
    start_server_on(WorkerPool::inline(), max_connections, tls)
}

pub(super) fn start_server_on(
    workers: WorkerPool,
    max_connections: usize,
    tls: Option<Arc<rustls::ServerConfig>>,
) -> TestServer {
    let max_connections = max_connections.try_into().unwrap();
    start_server_with(workers, config::Rtmp { max_connections, ..config::Rtmp::default() }, tls)
}

pub(super) fn start_server_with(
    workers: WorkerPool,
    config: config::Rtmp,
    tls: Option<Arc<rustls::ServerConfig>>,
) -> TestServer {
    start_server_sharing(&SharePolicy::new(&headwater_api::Config::default()), workers, config, tls)
}

/// With room for eight stream names.
pub(super) fn start_server_sharing(
    shares: &SharePolicy,
    workers: WorkerPool,
    config: config::Rtmp,
    tls: Option<Arc<rustls::ServerConfig>>,
) -> TestServer {
    let any: config::Listen = "127.0.0.1:0".parse().unwrap();
    let server = Server::bind(&config::Rtmp { listen: any, tls_listen: any, ..config }, shares, tls).unwrap();
    let (address, tls_address) = (server.local_addr().unwrap(), server.tls_local_addr());
    let (hub, drain) = (Hub::new(Limits::default()), CancellationToken::new());
    let refuse_new = CancellationToken::new();
    let config = headwater_api::Config::default();
    let meter = crate::node::load::LoadMeter::new(&config);
    let no_daemon = crate::node::health::NodeHealthReceiver::disconnected();
    let admission = Admission::new(&config.limits, &meter, &hub, &no_daemon, &refuse_new);
    let access = Access::with_apps(vec![AppDocument::open("live")]);
    let stream_names = shares.pool(8);
    let services =
        Services { hub: hub.clone(), access: access.clone(), admission, events: EventBus::default(), stream_names };
    let task = tokio::spawn(server.run(services, workers, drain.clone()));
    TestServer { address, tls_address, hub, access, refuse_new, drain, task }
}

impl TestServer {
    pub(super) async fn socket(&self) -> TcpStream {
        let socket = TcpStream::connect(self.address).await.unwrap();
        socket.set_nodelay(true).unwrap();
        socket
    }

    pub(super) async fn publisher(&self, name: &str) -> Client {
        Client::publisher(self.socket().await, name).await
    }

    pub(super) fn stream(&self, id: &str) -> Arc<Stream> {
        self.hub.stream(&StreamName::new("live", id).unwrap()).unwrap()
    }

    pub(super) async fn player(&self, name: &str) -> Client {
        Client::player(self.socket().await, name).await
    }
}
