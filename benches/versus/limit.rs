//! The limit: what a signed call can't be faster than. The bytes go there and back, both are signed and both are
//! verified: *echo + 2 sign + 2 verify*.

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ed25519_dalek::{Signer, SigningKey};
use hdrhistogram::Histogram;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, mpsc};

use crate::Fault;
use crate::figures::Round;
use crate::load::{histogram, micros};
use crate::process::{Process, cpu_time};

/// A newline echo in another process, and a connection to it.
pub struct Echo {
    process: Process,
    stream: Option<BufReader<TcpStream>>,
}

impl Echo {
    pub async fn start() -> Result<Self, Fault> {
        let mut process = Process::role("echo", &[])?;
        let addr = process.line("ready ").await?;
        let stream = TcpStream::connect(addr).await?;
        stream.set_nodelay(true)?;
        Ok(Self { process, stream: Some(BufReader::with_capacity(64 * 1024, stream)) })
    }

    /// So many lines under way, of so many bytes.
    pub async fn run(&mut self, in_flight: usize, bytes: usize, window: Duration) -> Result<Round, Fault> {
        let processes = [self.process.id(), std::process::id()];
        let before = cpu_time(&processes)?;
        let stream = self.stream.take().ok_or("the echo is under way")?;
        let line: Vec<u8> = std::iter::repeat_n(b'x', bytes.saturating_sub(1)).chain([b'\n']).collect();
        let from = Instant::now() + window.mul_f64(0.2);
        // On workers of the runtime, as everything else that is measured.
        let run = if in_flight == 1 {
            tokio::spawn(in_turn(stream, line, from, from + window))
        } else {
            tokio::spawn(pipelined(stream, in_flight, line, from, from + window))
        };
        let (stream, latencies, all) = run.await??;
        self.stream = Some(stream);
        let cpu = cpu_time(&processes)?.saturating_sub(before);
        Ok(Round {
            p50_us: Some(micros(&latencies, 0.5)),
            p99_us: Some(micros(&latencies, 0.99)),
            rate: Some(latencies.len() as f64 / window.as_secs_f64()),
            cpu_us: Some(cpu.as_secs_f64() * 1e6 / all as f64),
            value: None,
        })
    }
}

type Stream = BufReader<TcpStream>;
type Echoed = Result<(Stream, Histogram<u64>, u64), Fault>;

/// One line after another.
async fn in_turn(mut stream: Stream, line: Vec<u8>, from: Instant, until: Instant) -> Echoed {
    let (mut latencies, mut all, mut back) = (histogram(), 0, Vec::new());
    loop {
        let begun = Instant::now();
        if begun >= until {
            return Ok((stream, latencies, all));
        }
        back.clear();
        stream.write_all(&line).await?;
        if stream.read_until(b'\n', &mut back).await? != line.len() {
            return Err("the echo is not what was sent".into());
        }
        all += 1;
        let done = Instant::now();
        if done >= from && done < until {
            latencies.saturating_record((done - begun).as_nanos() as u64);
        }
    }
}

/// Several under way: one half writes as long as there is room, the other reads.
async fn pipelined(stream: Stream, in_flight: usize, line: Vec<u8>, from: Instant, until: Instant) -> Echoed {
    let (sent, mut begun) = mpsc::channel(in_flight);
    let room = Arc::new(Semaphore::new(in_flight));
    let (mut read, mut write) = stream.into_inner().into_split();
    let writer = {
        let (line, room) = (line.clone(), Arc::clone(&room));
        tokio::spawn(async move {
            while Instant::now() < until {
                room.acquire().await?.forget();
                sent.send(Instant::now()).await?;
                write.write_all(&line).await?;
            }
            Ok::<_, Fault>(write)
        })
    };
    let (mut latencies, mut all, mut back) = (histogram(), 0, Vec::new());
    let mut lines = BufReader::with_capacity(64 * 1024, &mut read);
    while let Some(begun) = begun.recv().await {
        back.clear();
        if lines.read_until(b'\n', &mut back).await? != line.len() {
            return Err("the echo is not what was sent".into());
        }
        room.add_permits(1);
        all += 1;
        let done = Instant::now();
        if done >= from && done < until {
            latencies.saturating_record((done - begun).as_nanos() as u64);
        }
    }
    let stream = read.reunite(writer.await??)?;
    Ok((BufReader::with_capacity(64 * 1024, stream), latencies, all))
}

/// The median microseconds of a signature, and of a check, of a message of so many bytes.
pub fn signature(bytes: usize, window: Duration) -> Result<(f64, f64), Fault> {
    let key = SigningKey::from_bytes(&[7; 32]);
    let message = vec![b'x'; bytes];
    let signature = key.sign(&message);
    let verifying = key.verifying_key();
    let sign = median(window / 2, || {
        black_box(key.sign(black_box(&message)));
    });
    verifying.verify_strict(&message, &signature)?;
    let verify = median(window / 2, || {
        let _ = black_box(verifying.verify_strict(black_box(&message), &signature));
    });
    Ok((sign, verify))
}

fn median(window: Duration, work: impl Fn()) -> f64 {
    let (mut times, until) = (histogram(), Instant::now() + window);
    while Instant::now() < until {
        let begun = Instant::now();
        work();
        times.saturating_record(begun.elapsed().as_nanos() as u64);
    }
    micros(&times, 0.5)
}
