//! The little HTTP that a bench needs: one request on one connection, answered in JSON.

use std::fmt::Write as _;
use std::net::SocketAddr;

use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::fleet::ClientError;

/// The gateway's API, as its administrator.
pub(crate) struct Api {
    address: SocketAddr,
    token: String,
}

impl Api {
    /// The API at `address`, which speaks plain HTTP.
    pub(crate) const fn new(address: SocketAddr, token: String) -> Self {
        Self { address, token }
    }

    /// `GET` of a path below `/api/v1`.
    ///
    /// # Errors
    /// [`ClientError`].
    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.ask("GET", path, "application/json", "").await
    }

    /// `POST` of JSON.
    ///
    /// # Errors
    /// [`ClientError`].
    pub(crate) async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &Value,
    ) -> Result<T, ClientError> {
        let body = body.to_string();
        self.ask("POST", path, "application/json", &body).await
    }

    /// `POST` of a CSV.
    ///
    /// # Errors
    /// [`ClientError`].
    pub(crate) async fn post_csv<T: DeserializeOwned>(
        &self,
        path: &str,
        text: String,
    ) -> Result<T, ClientError> {
        self.ask("POST", path, "text/csv", &text).await
    }

    /// `POST` of a form with a file: fields by name, then the file's bytes.
    ///
    /// # Errors
    /// [`ClientError`].
    pub(crate) async fn post_form<T: DeserializeOwned>(
        &self,
        path: &str,
        fields: &[(&str, &str)],
        file: &str,
    ) -> Result<T, ClientError> {
        let mut body = String::new();
        for (name, value) in fields {
            // Writing to a string does not fail.
            let _ = write!(
                body,
                "--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n"
            );
        }
        let _ = write!(
            body,
            "--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"file\"; filename=\"file\"\r\n\
             Content-Type: application/octet-stream\r\n\r\n{file}\r\n--{BOUNDARY}--\r\n"
        );
        let kind = format!("multipart/form-data; boundary={BOUNDARY}");
        self.ask("POST", path, &kind, &body).await
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        method: &str,
        path: &str,
        kind: &str,
        body: &str,
    ) -> Result<T, ClientError> {
        let mut socket = TcpStream::connect(self.address).await?;
        let head = format!(
            "{method} /api/v1{path} HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {}\r\n\
             Content-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
            self.address,
            self.token,
            body.len()
        );
        socket.write_all(head.as_bytes()).await?;
        socket.write_all(body.as_bytes()).await?;
        let mut answer = String::new();
        socket.read_to_string(&mut answer).await?;
        let (head, json) = answer
            .split_once("\r\n\r\n")
            .ok_or_else(|| ClientError::Answer("no head of an answer".to_owned()))?;
        if !head.starts_with("HTTP/1.1 2") {
            return Err(ClientError::Answer(format!("{method} {path}: {json}")));
        }
        serde_json::from_str(json).map_err(|error| ClientError::Answer(error.to_string()))
    }
}

const BOUNDARY: &str = "headgate-bench";
