//! What the cases call in the sandbox.

use kiln_sandbox::{Call, Function, Say, handed};
use serde::{Deserialize, Serialize};

use super::network::{converse, reach};
use super::prelude::*;

handed! {
    /// What some are handed.
    pub(super) struct Files {
        files: Vec<OwnedFd>,
    }
}

/// Functions as calls: what they are asked, say and answer is any JSON.
macro_rules! calls {
    ($($type:ident $name:literal $function:path,)+) => {
        $(
            #[derive(Serialize, Deserialize)]
            struct $type(Value);

            impl Call for $type {
                const NAME: &'static str = $name;
                type Handed = Files;
                type Message = Value;
                type Answer = Value;

                fn run(self, handed: Files, say: &Say<Value>) -> Result<Value, Error> {
                    $function(&Asked { payload: self.0, handed, say })
                }
            }
        )+

        /// Registered in the sandbox child.
        pub(crate) const FUNCTIONS: &[Function] = &[$(Function::of::<$type>()),+];
    };
}

/// What a function gets.
pub(super) struct Asked<'a> {
    pub(super) payload: Value,
    handed: Files,
    say: &'a Say<Value>,
}

calls! {
    Echo "echo" echo,
    Panic "panic" on_purpose,
    Fail "fail" fail,
    Flush "flush" flush,
    Families "families" families,
    Wait "wait" wait,
    Threads "threads" threads,
    ReadFiles "read" read,
    Program "program" program,
    OpenFiles "open-files" open_files,
    OwnProgram "own-program" own_program,
    Reach "reach" reach,
    Converse "converse" converse,
}

fn on_purpose(_: &Asked<'_>) -> Result<Value, Error> {
    panic!("on purpose")
}

fn echo(call: &Asked<'_>) -> Result<Value, Error> {
    for number in 0..3 {
        call.say.say(json!({ "number": number }));
    }
    let mut texts = Vec::new();
    for fd in &call.handed.files {
        let mut text = String::new();
        let mut file = fs::File::from(fd.try_clone().map_err(|error| {
            Error::new(ErrorKind::Internal, "copying a descriptor").because(error)
        })?);
        let read = file
            .read_to_string(&mut text)
            .and_then(|_| file.write_all(b" and back"));
        read.map_err(|error| Error::new(ErrorKind::Internal, "using a descriptor").because(error))?;
        texts.push(text);
    }
    let names: Vec<String> = fs::read_dir("/")
        .map_err(|error| Error::new(ErrorKind::Internal, "listing /").because(error))?
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .collect();
    Ok(
        json!({ "payload": call.payload, "texts": texts, "has_bin": names.contains(&"bin".to_owned()) }),
    )
}

fn fail(_: &Asked<'_>) -> Result<Value, Error> {
    Err(Error::new(ErrorKind::Input, "reading the list")
        .cause("line 3")
        .hint("mend it"))
}

fn flush(_: &Asked<'_>) -> Result<Value, Error> {
    let path = rustix::fs::open("/", rustix::fs::OFlags::PATH, rustix::fs::Mode::empty())
        .map_err(|error| Error::new(ErrorKind::Internal, "opening /").because(error))?;
    let results = [
        rustix::fs::fsync(&path),
        rustix::fs::fdatasync(&path),
        rustix::fs::syncfs(&path),
    ];
    Ok(json!(results.map(|result| result.is_ok())))
}

/// Whether sockets of these families can be made: unix, internet, and those to the hypervisor (vsock(7)).
fn families(_: &Asked<'_>) -> Result<Value, Error> {
    use rustix::net::{AddressFamily, SocketType, socket};
    let vsock = AddressFamily::from_raw(40);
    let families = [AddressFamily::UNIX, AddressFamily::INET, vsock];
    let made = families.map(|family| socket(family, SocketType::STREAM, None).is_ok());
    Ok(json!(made))
}

fn wait(call: &Asked<'_>) -> Result<Value, Error> {
    std::thread::sleep(Duration::from_secs(call.payload.as_u64().unwrap_or(0)));
    Ok(Value::Null)
}

fn threads(call: &Asked<'_>) -> Result<Value, Error> {
    let threads: Vec<_> = (0..8)
        .map(|thread| {
            let say = call.say.clone();
            std::thread::spawn(move || {
                (0..50).for_each(|n| say.say(json!([thread, n, "x".repeat(5000)])))
            })
        })
        .collect();
    let joined = threads.into_iter().all(|thread| thread.join().is_ok());
    Ok(json!(joined))
}

/// Reads a file, and has a shell read another.
fn read(call: &Asked<'_>) -> Result<Value, Error> {
    let failed = |error: std::io::Error| Error::new(ErrorKind::Step, "reading").because(error);
    let word = |index: usize| call.payload[index].as_str().unwrap_or_default();
    let own = fs::read_to_string(word(0)).map_err(failed)?;
    let mut shell = std::process::Command::new("/bin/sh");
    let others = shell.args(["-c", word(1)]).output().map_err(failed)?;
    let others = String::from_utf8_lossy(&others.stdout).into_owned();
    Ok(json!(format!("{own} {others}")))
}

/// What a confined shell prints and says.
fn program(call: &Asked<'_>) -> Result<Value, Error> {
    let mut shell = std::process::Command::new("/bin/sh");
    shell.args(["-c", call.payload.as_str().unwrap_or_default()]);
    kiln_sandbox::confine(&mut shell);
    let output = shell
        .output()
        .map_err(|error| Error::new(ErrorKind::Step, "running a confined shell").because(error))?;
    Ok(json!(String::from_utf8_lossy(&output.stdout)))
}

/// What the function's own descriptors are.
fn open_files(_: &Asked<'_>) -> Result<Value, Error> {
    let names = fs::read_dir("/proc/self/fd")
        .map_err(|error| Error::new(ErrorKind::Step, "listing descriptors").because(error))?;
    let targets = names.filter_map(|name| fs::read_link(name.ok()?.path()).ok());
    let mut kinds: Vec<String> = targets
        .map(|target| target.to_string_lossy().into_owned())
        .map(|target| target.split(':').next().unwrap_or_default().to_owned())
        .collect();
    kinds.sort();
    Ok(json!(kinds))
}

/// Which file the function runs from, how long it is, and what opening it for writing and writing to it bring.
fn own_program(_: &Asked<'_>) -> Result<Value, Error> {
    let failed = |error: std::io::Error| Error::new(ErrorKind::Step, "looking").because(error);
    let own = fs::metadata("/proc/self/exe").map_err(failed)?;
    let written = fs::OpenOptions::new().write(true).open("/proc/self/exe");
    let written = written.and_then(|mut file| file.write_all(b"#!/bin/sh\n"));
    let seals = rustix::fs::fcntl_get_seals(fs::File::open("/proc/self/exe").map_err(failed)?);
    let sealed = seals.is_ok_and(|seals| seals.contains(rustix::fs::SealFlags::WRITE));
    Ok(json!([
        own.dev(),
        own.ino(),
        own.len(),
        written.is_err(),
        sealed
    ]))
}
