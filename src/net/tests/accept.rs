//! Taking connections in, and having no room for more.

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::memory::Memory;

fn places(set: impl FnOnce(&mut Limits)) -> Arc<Places> {
    let limits = Limits::default().with(set);
    Places::new(&limits, Memory::new(limits.memory_budget))
}

#[tokio::test]
async fn full_then_room_then_stopped() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let cancel = CancellationToken::new();
    let (give, mut taken) = mpsc::channel(8);
    let on_stream = move |stream, addr, permit| give.try_send((stream, addr, permit)).unwrap();
    let accepting = tokio::spawn(accept_loop(listener, places(|l| l.max_half_open = 1), cancel.clone(), on_stream));

    let _first = Raw::connect(addr).await;
    let held = soon(taken.recv()).await.unwrap();
    // Those that say nothing are told in lines, a node of the Python package in its own framing.
    let (mut silent, mut python) = (Raw::connect(addr).await, Raw::connect(addr).await);
    python.frame(&Builder::new("hello").build()).await;
    silent.bye(CloseReason::Full).await;
    let bye = python.read_frame().await;
    assert!(python.is_bye(&bye, CloseReason::Full).await.contains("try again in a few seconds"));

    drop(held);
    let _second = Raw::connect(addr).await;
    let _held = soon(taken.recv()).await.unwrap();

    cancel.cancel();
    soon(accepting).await.unwrap();
    assert!(taken.recv().await.is_none());
    assert!(TcpStream::connect(addr).await.is_err());
}

#[tokio::test]
async fn a_node_that_is_full_says_so_to_the_dialer() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap().to_string();
    let (cancel, none) = (CancellationToken::new(), places(|l| l.max_connections = 0));
    let accepting = tokio::spawn(accept_loop(listener, none, cancel.clone(), |_, _, _| panic!("no permit")));
    let error = soon(dial(&addr, None, &config(2, |_| {}))).await.unwrap_err();
    assert_eq!(error.reason(), Some(CloseReason::Full), "{error}");
    cancel.cancel();
    soon(accepting).await.unwrap();
}

/// What a connection at rest costs is mostly its two tasks: whatever is large, and rarely there, has to be on the heap.
#[tokio::test]
async fn the_tasks_of_a_connection_are_small() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let (here, there) = (config(1, |_| {}), config(2, |_| {}));
    let far = tokio::spawn(async move {
        let established = dial(&addr.to_string(), None, &there).await.unwrap();
        tokio::time::sleep(PATIENCE).await;
        drop(established);
    });
    let (stream, _) = soon(listener.accept()).await.unwrap();
    let handshake = handshake_inbound(stream, &here);
    let size = size_of_val(&handshake);
    assert!(size < 2048, "a handshake takes {size} bytes");
    let established = soon(handshake).await.unwrap();
    let (_connection, tasks) = established.prepare(ConnId(1), None, Arc::new(Notes::default()), &here);
    let [reader, writer] = tasks.sizes();
    assert!(reader < 3584 && writer < 1536, "reading takes {reader} bytes, writing {writer}");
    far.abort();
}
