//! Who is let in, and who may ask for what: nodes in this process, real sockets.
#![allow(clippy::unwrap_used, reason = "a test stops where it fails")]

mod mesh;

use std::path::Path;
use std::time::Duration;

use elo::{
    Access, AccessFileState, Activity, CloseReason, Context, Delivery, Error, ErrorCode, Identity, Node, NodeId,
    Policy, Rate, Task, TaskError, Tracker, limits,
};
use mesh::{addr_of, eventually, meets, node, peered};
use serde_json::{Value, json};

async fn echo(task: Task, _: Context) -> Result<Value, TaskError> {
    Ok(task.payload.into())
}

/// Works until it is stopped.
async fn endless(_: Task, context: Context) -> Result<Value, TaskError> {
    context.cancelled().await;
    Err(TaskError::new("stopped"))
}

fn provider(name: &str) -> elo::Builder {
    node(name).agent("echo").agent("slow").handler("echo", echo).handler("slow", endless)
}

/// Written as a whole, as an editor does it.
fn write(path: &Path, content: &str) {
    let draft = path.with_extension("new");
    std::fs::write(&draft, content).unwrap();
    std::fs::rename(&draft, path).unwrap();
}

#[tokio::test]
async fn who_is_denied_is_answered_and_closed_at_once_and_may_come_back() {
    let provider = provider("provider").start().await.unwrap();
    let caller = peered("caller", &[&provider]).await;
    let mut seen = caller.activity();
    let mut running = caller.call("slow", Value::Null).start().await.unwrap();
    assert!(running.accepted().await);
    provider.set_access(provider.access().deny(caller.id())).unwrap();
    let error = running.outcome().await.unwrap_err();
    assert_eq!((error.code, error.delivery), (ErrorCode::NotAllowed, Delivery::Answered), "{error}");
    loop {
        if let Activity::PeerLost { reason, .. } = seen.recv().await.unwrap() {
            assert_eq!(reason, Some(CloseReason::NotAllowed));
            break;
        }
    }
    eventually("the handler was stopped", || provider.metrics().tasks_running == 0).await;
    assert!(provider.peers().is_empty());
    // It is told why, and when it tries again.
    eventually("the refusal is shown", || {
        let peers = caller.configured_peers();
        let away = &peers[0];
        !away.connected
            && away.reason == Some(CloseReason::NotAllowed)
            && away.failures > 0
            && away.next_dial_ms.is_some()
    })
    .await;
    assert!(caller.configured_peers()[0].message.contains("denied"), "{:?}", caller.configured_peers());
    provider.set_access(Access::public()).unwrap();
    meets(&caller, &[&provider]).await;
    let back = &caller.configured_peers()[0];
    assert!(back.connected && back.failures == 0 && back.node_id == Some(provider.id()), "{back:?}");
    assert_eq!(caller.call("echo", json!(1)).await.unwrap().payload, json!(1));
}

#[tokio::test]
async fn a_node_does_not_dial_whom_it_denies_and_does_at_once_when_it_no_longer_does() {
    let other = node("other").start().await.unwrap();
    let pinned = format!("{}@{}", other.id(), addr_of(&other));
    // Long waits: what is waited for here is the owner's word.
    let limits = elo::Limits::default()
        .with(|l| (l.redial_min, l.redial_max) = (Duration::from_secs(600), Duration::from_secs(600)));
    let builder = node("node").peer(pinned).limits(limits).access(Access::public().deny(other.id()));
    let node = builder.start().await.unwrap();
    eventually("it says why", || node.configured_peers()[0].message.contains("own owner")).await;
    assert_eq!(other.metrics().messages_in, 0);
    node.set_access(Access::public()).unwrap();
    meets(&node, &[&other]).await;
}

#[tokio::test]
async fn a_private_tracker_runs_no_task_of_a_stranger_whoever_brings_it() {
    let public = node("public").tracker(Tracker::Public).start().await.unwrap();
    let admits = Tracker::Private { allow: vec![public.id()] };
    let private = provider("private").tracker(admits).peer(addr_of(&public)).start().await.unwrap();
    meets(&private, &[&public]).await;
    let limits = || elo::Limits::default().with(|l| l.max_trackers = 0);
    let stranger =
        Node::builder().name("stranger").no_listen().limits(limits()).peer(addr_of(&public)).start().await.unwrap();
    meets(&stranger, &[&public]).await;
    let error = stranger.call("echo", json!(1)).to(private.id().to_string()).await.unwrap_err();
    assert_eq!((error.code, error.delivery), (ErrorCode::NotAllowed, Delivery::Answered), "{error:?}");
    assert!(error.message.contains("must allow"), "{error}");
    assert_eq!(private.status().access.refused["echo"].not_allowed, 1);
    // A private tracker stays private, and who is allowed is served.
    private.set_access(Access::public().allow(public.id()).allow(stranger.id())).unwrap();
    assert!(private.access().is_private());
    assert_eq!(stranger.call("echo", json!(2)).to(private.id().to_string()).await.unwrap().payload, json!(2));
}

#[tokio::test]
async fn a_tracker_relays_nothing_for_whom_it_denies() {
    let (one, two) =
        (node("one").tracker(Tracker::Public).start().await.unwrap(), { node("two").tracker(Tracker::Public) });
    let two = two.peer(addr_of(&one)).start().await.unwrap();
    meets(&two, &[&one]).await;
    let hidden = |name: &str, at: &Node| {
        let limits = elo::Limits::default().with(|l| l.max_trackers = 0);
        Node::builder().name(name).no_listen().limits(limits).peer(addr_of(at))
    };
    let far = hidden("far", &two).agent("echo").handler("echo", echo).start().await.unwrap();
    meets(&far, &[&two]).await;
    let author = hidden("author", &one).start().await.unwrap();
    meets(&author, &[&one]).await;
    let call = || author.call("echo", json!(1)).to(far.id().to_string()).via("one").timeout(Duration::from_secs(10));
    assert_eq!(call().await.unwrap().payload, json!(1));
    two.set_access(Access::public().deny(author.id())).unwrap();
    let error = call().await.unwrap_err();
    assert_eq!((error.code, error.delivery), (ErrorCode::NotAllowed, Delivery::NotSent), "{error:?}");
    assert!(error.message.contains("tracker's owner denied"), "{error}");
}

#[tokio::test]
async fn rules_decide_who_may_ask_and_how_often() {
    let (boss, worker) = (Identity::generate(), Identity::generate());
    let provider = node("provider")
        .agent("deploy.prod")
        .agent("deploy.test")
        .agent("slow")
        .agent("free")
        .default_handler(echo)
        .handler("slow", endless)
        .policy(Policy::new("deploy.prod").allow([boss.id()]))
        .policy(Policy::new("deploy*").deny([boss.id()]).rate(Rate::per_hour(2)))
        .policy(Policy::new("slow").max_in_flight(1))
        .start()
        .await
        .unwrap();
    let as_one = |identity: Identity| node("caller").identity(identity).peer(addr_of(&provider)).start();
    let (boss, worker) = (as_one(boss).await.unwrap(), as_one(worker).await.unwrap());
    meets(&boss, &[&provider]).await;
    meets(&worker, &[&provider]).await;
    async fn ask(who: &Node, capability: &str) -> Result<Value, (ErrorCode, bool)> {
        who.call(capability, json!(1)).await.map(|o| o.payload.into_value()).map_err(|e| {
            assert_eq!(e.delivery, Delivery::Answered, "{e:?}");
            (e.code, e.retry_after.is_some())
        })
    }
    let (refused, limited) = (Err((ErrorCode::NotAllowed, false)), Err((ErrorCode::RateLimited, true)));
    assert_eq!(ask(&boss, "deploy.prod").await, Ok(json!(1)));
    assert_eq!(ask(&worker, "deploy.prod").await, refused, "the first rule decides");
    assert_eq!(ask(&boss, "deploy.test").await, refused);
    for _ in 0..2 {
        assert_eq!(ask(&worker, "deploy.test").await, Ok(json!(1)));
    }
    assert_eq!(ask(&worker, "deploy.test").await, limited);
    let mut running = worker.call("slow", Value::Null).start().await.unwrap();
    assert!(running.accepted().await);
    assert_eq!(ask(&boss, "slow").await, limited, "of all callers together");
    for _ in 0..20 {
        assert_eq!(ask(&worker, "free").await, Ok(json!(1)));
    }
    let status = provider.status().access;
    let counts = |name: &str| (status.refused[name].not_allowed, status.refused[name].rate_limited);
    assert_eq!([counts("deploy.prod"), counts("deploy.test"), counts("slow")], [(1, 0), (1, 1), (0, 1)]);
    assert_eq!((status.policies, status.refused.len()), (3, 3));
}

#[tokio::test]
async fn who_is_not_served_gets_nothing_and_a_call_goes_to_the_next_provider() {
    let friend = Identity::generate();
    let only = provider("only").serve_only([friend.id()]).start().await.unwrap();
    let open = provider("open").start().await.unwrap();
    let friend = node("friend").identity(friend).peer(addr_of(&only)).start().await.unwrap();
    meets(&friend, &[&only]).await;
    assert_eq!(friend.call("echo", json!(1)).await.unwrap().responder, only.id());
    let stranger = peered("stranger", &[&only, &open]).await;
    for capability in ["ping", "health", "echo"] {
        let error = stranger.call(capability, json!(1)).to(only.id().to_string()).await.unwrap_err();
        assert_eq!((error.code, error.delivery), (ErrorCode::NotAllowed, Delivery::Answered), "{capability}");
    }
    // Whichever of them is asked first.
    for _ in 0..10 {
        assert_eq!(stranger.call("echo", json!(1)).await.unwrap().responder, open.id());
    }
    assert_eq!(only.status().access.serve_only, Some(1));
}

#[tokio::test]
async fn an_access_file_is_taken_kept_when_it_breaks_and_read_again_when_it_is_mended() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("access");
    let (friend, foe, third) = (Identity::generate(), Identity::generate(), Identity::generate().id());
    write(&path, &format!("allow {}  # friend\n", friend.id()));
    let provider =
        provider("provider").access(Access::private().allow(third)).access_file(&path).start().await.unwrap();
    let state = |state: AccessFileState| {
        let provider = provider.clone();
        move || provider.status().access.file.as_ref().is_some_and(|file| file.state == state)
    };
    assert!(state(AccessFileState::Taken)());
    assert!([friend.id(), third].iter().all(|id| provider.access().admits(id)));
    assert!(!provider.access().admits(&foe.id()));
    let foe = node("foe").identity(foe).peer(addr_of(&provider)).start().await.unwrap();
    let friend = node("friend").identity(friend).peer(addr_of(&provider)).start().await.unwrap();
    meets(&friend, &[&provider]).await;
    assert!(foe.peers().is_empty());
    let mut activity = provider.activity();
    // Broken: nothing changes, and it is said where.
    write(&path, &format!("allow {}\nallow nonsense\n", foe.id()));
    eventually("it is seen to be broken", state(AccessFileState::Broken)).await;
    let detail = provider.status().access.file.unwrap().detail;
    assert!(detail.contains("access:2: ") && detail.contains("43 characters"), "{detail}");
    assert!(provider.access().admits(&friend.id()) && !provider.access().admits(&foe.id()));
    assert_eq!(friend.call("echo", json!(1)).await.unwrap().payload, json!(1));
    let told = loop {
        if let Activity::AccessChanged { problem: Some(problem), .. } = activity.recv().await.unwrap() {
            break problem;
        }
    };
    assert!(told.contains("access:2: "), "{told}");
    assert!(matches!(provider.reload_access().await, Err(Error::Config(_))));
    // Gone: what it said counts.
    std::fs::remove_file(&path).unwrap();
    eventually("it is seen to be gone", || provider.status().access.file.unwrap().detail.contains("gone")).await;
    assert!(provider.access().admits(&friend.id()) && !provider.access().admits(&foe.id()));
    // Mended: it counts as a whole, and the friend it no longer names goes.
    write(&path, &format!("allow {}\n", foe.id()));
    eventually("it is taken", state(AccessFileState::Taken)).await;
    meets(&foe, &[&provider]).await;
    eventually("the other one is closed", || friend.peers().is_empty()).await;
    assert!(provider.access().admits(&third), "what the program set stays");
    // At once, when that is asked for.
    write(&path, &format!("deny {}\nallow {}\n", foe.id(), friend.id()));
    provider.reload_access().await.unwrap();
    assert!(provider.access().admits(&friend.id()) && !provider.access().admits(&foe.id()));
}

#[tokio::test]
async fn a_file_that_appears_later_is_taken() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("access");
    let node = node("node").access_file(&path).start().await.unwrap();
    assert_eq!(node.status().access.file.unwrap().state, AccessFileState::Missing);
    let foe = Identity::generate().id();
    write(&path, &format!("deny {foe}\n"));
    eventually("it is taken", || !node.access().admits(&foe)).await;
}

#[cfg(unix)]
#[tokio::test]
async fn a_file_that_others_may_write_or_own_is_not_used() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("access");
    let foe = Identity::generate().id();
    write(&path, &format!("deny {foe}\n"));
    let node_with = |path: &Path| node("node").access_file(path).start();
    let set = |mode| std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
    for mode in [0o622, 0o606, 0o666] {
        set(mode);
        let error = node_with(&path).await.unwrap_err().to_string();
        assert!(error.contains("may be written by others") && error.contains("chmod 600"), "{error}");
    }
    set(0o600);
    let node = node_with(&path).await.unwrap();
    assert!(!node.access().admits(&foe));
    set(0o666);
    eventually("it is no longer trusted", || node.status().access.file.unwrap().state == AccessFileState::Broken).await;
    write(&path, "");
    set(0o666);
    let error = node.reload_access().await.unwrap_err().to_string();
    assert!(error.contains("may be written by others"), "{error}");
    assert!(!node.access().admits(&foe), "what it said before counts");
    set(0o600);
    eventually("it is trusted again", || node.access().admits(&foe)).await;
    // Somebody else's: only the administrator can make one.
    let theirs = dir.path().join("theirs");
    write(&theirs, "");
    if std::os::unix::fs::chown(&theirs, Some(4242), None).is_ok() {
        let error = node_with(&theirs).await.unwrap_err().to_string();
        assert!(error.contains("belongs to user 4242"), "{error}");
    }
    let error = node_with(dir.path()).await.unwrap_err().to_string();
    assert!(error.contains("not a file"), "{error}");
}

#[tokio::test]
async fn a_hundred_thousand_are_taken_and_one_more_is_refused() {
    let made_up = |n: u32| {
        let mut bytes = [9; 32];
        bytes[..4].copy_from_slice(&n.to_le_bytes());
        NodeId::from_bytes(bytes)
    };
    let list = |n: u32| (0..n).fold(String::new(), |text, n| text + &format!("deny {}  # made up\n", made_up(n)));
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("access");
    let most = u32::try_from(limits::MAX_ACCESS_ENTRIES).unwrap();
    write(&path, &list(most));
    let full = node("full").access_file(&path).start().await.unwrap();
    assert_eq!(full.access().denied().len(), limits::MAX_ACCESS_ENTRIES);
    assert!(!full.access().admits(&made_up(most - 1)) && full.access().admits(&made_up(most)));
    let other = peered("other", &[&full]).await;
    assert!(other.call("ping", Value::Null).await.is_ok());
    write(&path, &list(most + 1));
    let error = full.reload_access().await.unwrap_err().to_string();
    assert!(error.contains(":100001: more than 100000 ids"), "{error}");
    assert_eq!(full.access().denied().len(), limits::MAX_ACCESS_ENTRIES);
    write(&path, &"#".repeat(usize::try_from(limits::MAX_ACCESS_FILE).unwrap() + 1));
    let error = full.reload_access().await.unwrap_err().to_string();
    assert!(error.contains("more than 16777216 bytes"), "{error}");
    write(&path, "");
    full.reload_access().await.unwrap();
    assert_eq!(full.access().denied().len(), 0);
    let many = (0..=most).map(made_up).fold(Access::public(), Access::deny);
    assert!(matches!(full.set_access(many), Err(Error::Config(_))));
}

#[tokio::test]
async fn rules_that_can_not_work_keep_a_node_from_starting() {
    for (rule, said) in [
        (Policy::new("a*b"), "at the end only"),
        (Policy::new(""), "1 to 128"),
        (Policy::new("a").max_in_flight(0), "max_in_flight"),
    ] {
        let error = node("node").policy(rule).start().await.unwrap_err();
        assert!(matches!(&error, Error::Config(text) if text.contains(said)), "{error}");
    }
}
