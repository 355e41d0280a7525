//! What a message costs on its way in and out: framing, parsing, the canonical form, signatures.
//!
//! `cargo bench --bench codec`

use std::hint::black_box;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use elo::Identity;
use elo::seal::{Message, Sealer};
use elo::wire::codec::encode;
use elo::wire::{
    Builder, Codec, Draft, Framing, Message as WireMessage, Object, ResultDraft, Roots, SealedKind, Speaker, TaskDraft,
    batch, check, verify_object, verify_signed,
};
use tokio_util::codec::Decoder;

/// A signed task of about `size` bytes.
fn task(identity: &Identity, size: usize) -> Object {
    let payload = Builder::untyped().str("text", &prose(size)).build();
    builder(identity, &payload).sign(identity, &[])
}

fn builder(identity: &Identity, payload: &Object) -> Builder {
    let id = identity.id().to_string();
    Builder::new("task")
        .str("id", "6f9619ff-8b86-4d01-b42d-00cf4fc964ff")
        .str("target", &id)
        .str("caller", &id)
        .str("capability", "translate")
        .object("payload", payload)
        .str("protocol", "elo.v1")
        .u64("timestamp", 1_700_000_000)
        .u64("ttl_s", 30)
}

/// What agents send each other: mostly plain text, with a line end now and then.
fn prose(size: usize) -> String {
    "It was a bright cold day in April, and the clocks were striking thirteen.\n".chars().cycle().take(size).collect()
}

/// The same message as another implementation might have written it: white space, Unicode as itself.
fn respelled(canonical: &Object) -> Object {
    let value: serde_json::Value = serde_json::from_slice(canonical.raw()).expect("valid");
    let text = serde_json::to_vec_pretty(&value).expect("valid");
    Object::parse(text.into()).expect("valid")
}

fn codec(criterion: &mut Criterion) {
    let identity = Identity::from_seed([1; 32]);
    // The empty task is some 430 bytes by itself: two ids, a signature.
    for (name, size) in [("small", 0), ("16KiB", 16 << 10), ("512KiB", 512 << 10)] {
        let message = task(&identity, size);
        let loose = respelled(&message);
        let payload = message.child("payload").expect("there").expect("an object");
        let mut group = criterion.benchmark_group(format!("{name} ({} bytes)", message.raw().len()));
        group.throughput(Throughput::Bytes(message.raw().len() as u64));
        group.sample_size(30);
        group.bench_function("parse", |b| {
            b.iter(|| Object::parse(black_box(message.raw().clone())).is_ok());
        });
        group.bench_function("parse, not canonical", |b| {
            b.iter(|| Object::parse(black_box(loose.raw().clone())).is_ok());
        });
        group.bench_function("serde_json parse", |b| {
            b.iter(|| serde_json::from_slice::<serde_json::Value>(black_box(message.raw())).is_ok());
        });
        group.bench_function("signing bytes", |b| {
            b.iter(|| black_box(&message).signing_bytes(&["signature"]).len());
        });
        group.bench_function("signing bytes, not canonical", |b| {
            b.iter(|| black_box(&loose).signing_bytes(&["signature"]).len());
        });
        group.bench_function("verify", |b| {
            b.iter(|| verify_object(black_box(&message), &identity.id(), &[]));
        });
        group.bench_function("verify, not canonical", |b| {
            b.iter(|| verify_object(black_box(&loose), &identity.id(), &[]));
        });
        group.bench_function("build", |b| {
            b.iter(|| builder(&identity, black_box(&payload)).build());
        });
        group.bench_function("build and sign", |b| {
            b.iter(|| builder(&identity, black_box(&payload)).sign(&identity, &[]));
        });
        for framing in [Framing::Line, Framing::Length] {
            let mut stream = BytesMut::new();
            encode(framing, message.raw(), &mut stream);
            group.bench_function(format!("decode {framing:?}"), |b| {
                let mut codec = Codec::new(framing, 1 << 20);
                b.iter(|| codec.decode(&mut black_box(stream.clone())).is_ok());
            });
        }
        group.finish();
    }
}

/// Signing many messages at once, and checking them: the time is that of all of them.
fn batches(criterion: &mut Criterion) {
    let identity = Identity::from_seed([1; 32]);
    let mut group = criterion.benchmark_group("small messages signed together");
    group.sample_size(30);
    for count in [2u64, 16, 64, 256] {
        let payload = Builder::untyped().build();
        let unsigned = || (0..count).map(|_| builder(&identity, &payload).unsigned(&[])).collect::<Vec<_>>();
        let signed = batch::sign(&identity, unsigned());
        group.throughput(Throughput::Elements(count));
        group.bench_function(format!("sign {count}"), |b| {
            b.iter_batched(unsigned, |all| batch::sign(&identity, all), BatchSize::SmallInput);
        });
        group.bench_function(format!("verify {count}"), |b| {
            b.iter(|| {
                let mut roots = Roots::new();
                signed.iter().all(|m| verify_signed(black_box(m), &identity.id(), &mut roots).is_ok())
            });
        });
        group.bench_function(format!("verify {count}, the root known"), |b| {
            let mut roots = Roots::new();
            b.iter(|| signed.iter().all(|m| verify_signed(black_box(m), &identity.id(), &mut roots).is_ok()));
        });
    }
    group.finish();
}

/// All that is done to messages of a batch on their way out, and on their way in: the time is that of 32 of them.
fn batch_path(criterion: &mut Criterion) {
    const COUNT: u64 = 32;
    let identity = Identity::from_seed([1; 32]);
    let me = identity.id();
    let payload = Bytes::from_static(br#"{"n":12345,"text":"hello there"}"#);
    let id = |n: u64| format!("6f9619ff-8b86-4d01-b42d-00cf4fc9{n:04}");
    let task = |n| {
        Draft::Task(TaskDraft {
            id: id(n),
            target: me,
            capability: "echo".into(),
            payload: payload.clone(),
            timestamp: 1_700_000_000,
            ttl_s: 30,
            wait_s: None,
            window: Some(64),
            instance: None,
        })
    };
    let result = |n| Draft::Result(ResultDraft { id: id(n), caller: me, body: Ok(payload.clone()), chunks: 0 });
    let mut group = criterion.benchmark_group("batch path");
    group.throughput(Throughput::Elements(COUNT));
    group.sample_size(30);
    for (name, drafts) in
        [("tasks", (0..COUNT).map(task).collect::<Vec<_>>()), ("results", (0..COUNT).map(result).collect())]
    {
        let write = |out: &mut BytesMut| {
            let messages: Vec<_> = drafts.iter().map(|draft| draft.unsigned(&me)).collect();
            batch::write(&identity, &messages, Framing::Line, out);
        };
        let mut stream = BytesMut::new();
        write(&mut stream);
        group.bench_function(format!("build, sign, encode {COUNT} {name}"), |b| {
            let mut out = BytesMut::new();
            b.iter(|| {
                out.clear();
                write(&mut out);
                black_box(out.len())
            });
        });
        group.bench_function(format!("decode, parse, check {COUNT} {name}"), |b| {
            b.iter(|| {
                let (mut buffer, mut roots) = (BytesMut::from(&stream[..]), Roots::new());
                let mut codec = Codec::new(Framing::Line, 1 << 20);
                while let Ok(Some(raw)) = codec.decode(&mut buffer) {
                    let message = WireMessage::parse(&Object::parse(raw).expect("an object")).expect("a message");
                    black_box(check(message, Speaker::Proven, &mut roots).expect("signed"));
                }
            });
        });
    }
    group.finish();
}

/// Sealing and opening: in a context that is known, and with one to be agreed on.
fn sealing(criterion: &mut Criterion) {
    let (alice, bob) = (Identity::from_seed([1; 32]), Identity::from_seed([2; 32]));
    let mut rng = rand::rng();
    let (me, target) = (alice.id(), bob.id());
    let sealer = Sealer::new(me, &mut rng);
    let opener = Sealer::new(target, &mut rng);
    let (key, now) = (opener.key(), Duration::ZERO);
    for (name, size) in [("350 B", 350), ("10 kB", 10_000)] {
        let text = vec![b'x'; size];
        let message = Message {
            kind: SealedKind::Accepted,
            id: "6f9619ff-8b86-4d01-b42d-00cf4fc964ff",
            target: &target,
            key: &key,
            instance: None,
            ttl_s: None,
            text: &text,
        };
        let frame = sealer.seal(&alice, &message, now, &mut rng).expect("sealed");
        let relay = Builder::new("relay").str("target", &target.to_string()).str("source", &me.to_string());
        let relay = relay.u64("hops", 1).object("frame", &frame).build();
        let parsed = || WireMessage::parse(&relay).expect("a relay");
        let checked = check(parsed(), Speaker::Proven, &mut Roots::new()).expect("signed");
        let sealed = checked.sealed_for(&target).expect("an envelope");
        let mut group = criterion.benchmark_group(format!("sealed, {name}"));
        group.sample_size(30);
        group.bench_function("sign alone", |b| b.iter(|| alice.sign(black_box(&text))));
        group.bench_function("seal and sign, warm", |b| {
            b.iter(|| sealer.seal(&alice, black_box(&message), now, &mut rng).is_ok());
        });
        group.bench_function("seal and sign, cold", |b| {
            let mut rng = rand::rng();
            b.iter(|| Sealer::new(me, &mut rng).seal(&alice, black_box(&message), now, &mut rand::rng()).is_ok());
        });
        group.bench_function("a key pair", |b| b.iter(|| Sealer::new(me, &mut rand::rng())));
        group.bench_function("verify the envelope", |b| {
            b.iter(|| check(parsed(), Speaker::Proven, &mut Roots::new()).is_ok());
        });
        group.bench_function("open, warm", |b| b.iter(|| opener.open(black_box(sealed), now).is_ok()));
        group.bench_function("open, cold", |b| {
            b.iter(|| {
                opener.forget_contexts();
                opener.open(black_box(sealed), now).is_ok()
            });
        });
        group.finish();
    }
}

criterion_group!(benches, codec, batches, batch_path, sealing);
criterion_main!(benches);
