//! Functions of this program that run inside, by their types.

use std::collections::HashSet;
use std::fmt;
use std::fs::File;
use std::marker::PhantomData;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::Result;
use crate::wire::{self, FromCall};
use crate::{Body, Error};

/// What is asked of a function of this very program, and what it does. It runs alone in its process, as root of the namespace, with
/// the request's root as `/`; it may start threads, and programs of the root, which are [`crate::confine`]d.
pub trait Call: Serialize + DeserializeOwned {
    /// Its name, which no other function has.
    const NAME: &'static str;
    /// The descriptors that it gets: `()`, or what [`crate::handed!`] makes.
    type Handed: Handed;
    /// What it says on the way.
    type Message: Serialize + DeserializeOwned;
    /// What it says in the end.
    type Answer: Serialize + DeserializeOwned;

    /// Runs it, inside.
    ///
    /// # Errors
    /// Whatever it does has failed; the caller gets the error as it is.
    fn run(self, handed: Self::Handed, say: &Say<Self::Message>) -> Result<Self::Answer>;
}

/// The messages of a call that says nothing on the way.
#[derive(Debug, Serialize, Deserialize)]
pub enum Silence {}

/// A function that [`crate::entry`] registers.
#[derive(Clone, Copy, Debug)]
pub struct Function {
    name: &'static str,
    run: fn(Given) -> Result<Value>,
}

/// What the child got for a function.
pub(crate) struct Given {
    pub(crate) payload: Value,
    pub(crate) handed: Vec<(String, OwnedFd)>,
    pub(crate) socket: OwnedFd,
}

impl Function {
    /// The function of a type.
    #[must_use]
    pub const fn of<C: Call>() -> Self {
        Function {
            name: C::NAME,
            run: run::<C>,
        }
    }

    pub(crate) fn run(self, given: Given) -> Result<Value> {
        (self.run)(given)
    }

    /// The one of this name. Two of one name are refused, whichever is asked for.
    pub(crate) fn find(functions: &[Function], name: &str) -> Result<Function> {
        let mut names = HashSet::new();
        if let Some(twice) = functions.iter().find(|one| !names.insert(one.name)) {
            let name = twice.name;
            return Err(Error::internal(format!(
                "two functions of the sandbox are named {name}"
            )));
        }
        let found = functions.iter().find(|one| one.name == name);
        found.copied().ok_or_else(|| {
            Error::internal(format!(
                "the sandbox has no function named {name}; `entry` has to register it"
            ))
        })
    }
}

fn run<C: Call>(given: Given) -> Result<Value> {
    let request: C = serde_json::from_value(given.payload)
        .map_err(|error| wrong::<C>("got an unknown request").because(error))?;
    let mut descriptors = Descriptors(given.handed);
    let handed = C::Handed::take(&mut descriptors)
        .and_then(|handed| descriptors.end().map(|()| handed))
        .map_err(|why| wrong::<C>(&why))?;
    let answer = request.run(handed, &Say::new(given.socket))?;
    serde_json::to_value(answer).map_err(|error| wrong::<C>("has no answer").because(error))
}

/// A request, descriptor or answer that is not what the types say.
pub(crate) fn wrong<C: Call>(what: &str) -> Error {
    Error::internal(format!("Kiln's own step `{}` {what}", C::NAME))
}

impl Body {
    /// The body that calls a function, and the descriptors for [`crate::Io::fds`].
    ///
    /// # Errors
    /// The request cannot be written down.
    pub fn call<C: Call>(call: &C, handed: C::Handed) -> Result<(Body, Vec<OwnedFd>)> {
        let payload = serde_json::to_value(call)
            .map_err(|error| wrong::<C>("cannot be asked").because(error))?;
        let (descriptors, fds) = handed
            .give()
            .into_iter()
            .map(|(name, fd)| (name.to_owned(), fd))
            .unzip();
        let body = Body::Call {
            function: C::NAME.to_owned(),
            payload,
            descriptors,
        };
        Ok((body, fds))
    }
}

/// A message of a function, as it was said.
///
/// # Errors
/// It is none that the function says.
pub fn message<C: Call>(value: Value) -> Result<C::Message> {
    serde_json::from_value(value)
        .map_err(|error| wrong::<C>("said something unknown").because(error))
}

/// Tells the caller on the way. Clones share the connection; threads may use it at once.
pub struct Say<M> {
    socket: Arc<Mutex<OwnedFd>>,
    messages: PhantomData<fn(M)>,
}

impl<M> Clone for Say<M> {
    fn clone(&self) -> Self {
        Say {
            socket: Arc::clone(&self.socket),
            messages: PhantomData,
        }
    }
}

impl<M> fmt::Debug for Say<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Say").finish_non_exhaustive()
    }
}

impl<M: Serialize> Say<M> {
    fn new(socket: OwnedFd) -> Self {
        Say {
            socket: Arc::new(Mutex::new(socket)),
            messages: PhantomData,
        }
    }

    /// Sends one message, waiting while the caller is behind. A caller that is gone hears nothing.
    pub fn say(&self, message: M) {
        // What is no JSON arrives as nothing, which the caller refuses.
        let message = serde_json::to_value(message).unwrap_or(Value::Null);
        let socket = self.socket.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = wire::send(socket.as_fd(), &FromCall::Message(message), &[]);
    }
}

/// Descriptors that go to a function, each with its name.
pub trait Handed: Sized {
    /// All of them; several of one name stay in order.
    fn give(self) -> Vec<(&'static str, OwnedFd)>;

    /// Takes them on the other side.
    ///
    /// # Errors
    /// What is missing, or there too often, by its name.
    fn take(from: &mut Descriptors) -> std::result::Result<Self, String>;
}

impl Handed for () {
    fn give(self) -> Vec<(&'static str, OwnedFd)> {
        Vec::new()
    }

    fn take(_: &mut Descriptors) -> std::result::Result<Self, String> {
        Ok(())
    }
}

/// What has arrived and was not taken yet.
#[derive(Debug)]
pub struct Descriptors(Vec<(String, OwnedFd)>);

impl Descriptors {
    /// All of this name.
    ///
    /// # Errors
    /// Their number is not what the field can hold.
    pub fn take<F: Field>(&mut self, name: &str) -> std::result::Result<F, String> {
        let (found, left) = std::mem::take(&mut self.0)
            .into_iter()
            .partition(|(its, _)| its == name);
        self.0 = left;
        F::taken(found.into_iter().map(|(_, fd)| fd).collect())
            .map_err(|count| format!("got {count} descriptors named `{name}`"))
    }

    fn end(self) -> std::result::Result<(), String> {
        match self.0.first() {
            None => Ok(()),
            Some((name, _)) => Err(format!("got a descriptor `{name}`, which it does not know")),
        }
    }
}

/// What a name can stand for: one descriptor, one or none, or any number.
pub trait Field: Sized {
    /// From all of the name; the error is their number.
    ///
    /// # Errors
    /// There are too many or too few.
    fn taken(found: Vec<OwnedFd>) -> std::result::Result<Self, usize>;

    /// To be sent.
    fn given(self) -> Vec<OwnedFd>;
}

impl Field for OwnedFd {
    fn taken(found: Vec<OwnedFd>) -> std::result::Result<Self, usize> {
        let [one]: [OwnedFd; 1] = found.try_into().map_err(|all: Vec<_>| all.len())?;
        Ok(one)
    }

    fn given(self) -> Vec<OwnedFd> {
        vec![self]
    }
}

impl Field for File {
    fn taken(found: Vec<OwnedFd>) -> std::result::Result<Self, usize> {
        OwnedFd::taken(found).map(File::from)
    }

    fn given(self) -> Vec<OwnedFd> {
        vec![OwnedFd::from(self)]
    }
}

impl<F: Field> Field for Option<F> {
    fn taken(found: Vec<OwnedFd>) -> std::result::Result<Self, usize> {
        if found.is_empty() {
            return Ok(None);
        }
        F::taken(found).map(Some)
    }

    fn given(self) -> Vec<OwnedFd> {
        self.map_or_else(Vec::new, F::given)
    }
}

impl Field for Vec<OwnedFd> {
    fn taken(found: Vec<OwnedFd>) -> std::result::Result<Self, usize> {
        Ok(found)
    }

    fn given(self) -> Vec<OwnedFd> {
        self
    }
}

/// A struct of descriptors that go to a function under the names of its fields.
#[macro_export]
macro_rules! handed {
    ($(#[$about:meta])* $sees:vis struct $name:ident { $($(#[$what:meta])* $field:ident: $type:ty),+ $(,)? }) => {
        $(#[$about])*
        $sees struct $name {
            $($(#[$what])* $sees $field: $type),+
        }

        impl $crate::Handed for $name {
            fn give(self) -> Vec<(&'static str, ::std::os::fd::OwnedFd)> {
                let mut all = Vec::new();
                $(all.extend($crate::Field::given(self.$field).into_iter().map(|fd| (stringify!($field), fd)));)+
                all
            }

            fn take(from: &mut $crate::Descriptors) -> ::std::result::Result<Self, String> {
                Ok($name { $($field: from.take(stringify!($field))?),+ })
            }
        }
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    handed! {
        struct Files {
            disk: File,
            layers: Vec<OwnedFd>,
            store: Option<OwnedFd>,
        }
    }

    #[derive(Serialize, Deserialize)]
    struct Count {
        from: u64,
    }

    impl Call for Count {
        const NAME: &'static str = "test.count";
        type Handed = Files;
        type Message = u64;
        type Answer = u64;

        fn run(self, handed: Files, say: &Say<u64>) -> Result<u64> {
            say.say(self.from);
            Ok(self.from + handed.layers.len() as u64 + u64::from(handed.store.is_some()))
        }
    }

    fn fd() -> OwnedFd {
        File::open("/dev/null").unwrap().into()
    }

    fn called(payload: Value, names: &[&str]) -> Result<Value> {
        let (socket, _caller) = std::os::unix::net::UnixStream::pair().unwrap();
        Function::of::<Count>().run(Given {
            payload,
            handed: names.iter().map(|&name| (name.to_owned(), fd())).collect(),
            socket: socket.into(),
        })
    }

    #[test]
    fn descriptors_go_by_their_names() {
        let files = Files {
            disk: fd().into(),
            layers: vec![fd(), fd()],
            store: None,
        };
        let (body, fds) = Body::call(&Count { from: 3 }, files).unwrap();
        let Body::Call {
            payload,
            descriptors,
            ..
        } = body
        else {
            panic!("no call");
        };
        assert_eq!(descriptors, ["disk", "layers", "layers"]);
        assert_eq!(fds.len(), 3);
        let names: Vec<&str> = descriptors.iter().map(String::as_str).collect();
        assert_eq!(called(payload.clone(), &names).unwrap(), 5);
        assert_eq!(called(payload, &["store", "layers", "disk"]).unwrap(), 5);
    }

    #[test]
    fn what_does_not_fit_is_an_internal_error_that_names_it() {
        let cases: [(Value, &[&str], &str); 5] = [
            (
                serde_json::json!({"from": 1}),
                &["layers"],
                "got 0 descriptors named `disk`",
            ),
            (
                serde_json::json!({"from": 1}),
                &["disk", "disk"],
                "got 2 descriptors named `disk`",
            ),
            (
                serde_json::json!({"from": 1}),
                &["disk", "store", "store"],
                "got 2 descriptors named `store`",
            ),
            (
                serde_json::json!({"from": 1}),
                &["disk", "tape"],
                "got a descriptor `tape`, which it does not know",
            ),
            (
                serde_json::json!({"to": 1}),
                &["disk"],
                "got an unknown request",
            ),
        ];
        for (payload, names, words) in cases {
            let error = called(payload, names).unwrap_err();
            assert_eq!(error.kind, crate::ErrorKind::Internal);
            assert_eq!(
                error.message,
                format!("Kiln's own step `test.count` {words}")
            );
        }
    }

    #[test]
    fn a_name_belongs_to_one_function() {
        let one = Function::of::<Count>();
        assert!(Function::find(&[one], "test.count").is_ok());
        let twice = Function::find(&[one, one], "test.count").unwrap_err();
        assert!(twice.message.contains("two functions"), "{twice:?}");
        let none = Function::find(&[one], "test.other").unwrap_err();
        assert!(
            none.message.contains("no function named test.other"),
            "{none:?}"
        );
    }
}
