//! Frames on the connection: a length of four bytes, big endian, then as many bytes.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Longest frame in bytes; a longer one ends the connection before anything is allocated for it.
pub(super) const MAX_FRAME: u32 = 64 * 1024;

/// Reads one frame; nothing at a clean end between frames. Not cancel safe: drop the connection with the future.
pub(super) async fn read(from: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<Vec<u8>>> {
    let len = match from.read_u32().await {
        Ok(len) => len,
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(e) => return Err(e),
    };
    if len > MAX_FRAME {
        let text = format!("a frame of {len} bytes was announced; at most {MAX_FRAME} are taken");
        return Err(io::Error::new(io::ErrorKind::InvalidData, text));
    }
    let mut bytes = Vec::new();
    from.take(u64::from(len)).read_to_end(&mut bytes).await?;
    if bytes.len() as u64 == u64::from(len) {
        Ok(Some(bytes))
    } else {
        Err(io::ErrorKind::UnexpectedEof.into())
    }
}

/// Writes one frame and sends it off.
pub(super) async fn write(to: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> io::Result<()> {
    let len = u32::try_from(bytes.len()).ok().filter(|len| *len <= MAX_FRAME);
    let len =
        len.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "a frame is too long to send"))?;
    to.write_u32(len).await?;
    to.write_all(bytes).await?;
    to.flush().await
}

#[cfg(test)]
mod tests {
    use super::{MAX_FRAME, read, write};

    #[tokio::test]
    async fn frames_come_out_as_they_went_in() {
        let mut pipe = Vec::new();
        write(&mut pipe, b"one").await.expect("fits");
        write(&mut pipe, b"").await.expect("fits");
        let mut from = pipe.as_slice();
        assert_eq!(read(&mut from).await.expect("a frame").as_deref(), Some(&b"one"[..]));
        assert_eq!(read(&mut from).await.expect("a frame").as_deref(), Some(&b""[..]));
        assert_eq!(read(&mut from).await.expect("an end"), None);
    }

    #[tokio::test]
    async fn a_cut_or_too_long_frame_is_an_error() {
        assert!(read(&mut [0, 0, 0, 5, 1, 2].as_slice()).await.is_err());
        assert!(read(&mut [0xff; 8].as_slice()).await.is_err());
        assert!(write(&mut Vec::new(), &vec![0; MAX_FRAME as usize + 1]).await.is_err());
    }
}
