//! What the v1 operator APIs of master and agent answer in the same way.

use bytes::Bytes;
use http::StatusCode;
use tepui_proto::v1;

use super::{FileError, FileInfo, Shared, VersionInfo};
use crate::Subject;
use crate::authorize::Denied;
use crate::response::Response;

impl Shared {
    /// The flags of GET_FLAGS.
    pub fn get_flags(&self) -> Vec<v1::Flag> {
        let flag = |(name, value): (&String, &String)| v1::Flag {
            name: name.clone(),
            value: Some(value.clone()),
        };
        self.flags.iter().map(flag).collect()
    }

    /// The entries of LIST_FILES.
    ///
    /// # Errors
    /// Who asks may not see the path, or it cannot be listed.
    pub async fn list_files<E>(
        &self,
        subject: Option<&Subject>,
        path: String,
    ) -> Result<Vec<v1::FileInfo>, E>
    where
        E: From<Denied> + From<FileError>,
    {
        let files = self.files.clone();
        files.permit(&*self.authorizer, subject, &path).await?;
        let listed = tokio::task::spawn_blocking(move || files.browse(&path)).await;
        let listed = listed.expect("file access does not panic")?;
        Ok(listed.into_iter().map(FileInfo::into_v1).collect())
    }

    /// The size of a file and what READ_FILE asks for of it.
    ///
    /// # Errors
    /// As [`Shared::list_files`].
    pub async fn read_file<E>(
        &self,
        subject: Option<&Subject>,
        path: String,
        offset: u64,
        length: Option<u64>,
    ) -> Result<(u64, Bytes), E>
    where
        E: From<Denied> + From<FileError>,
    {
        let files = self.files.clone();
        files.permit(&*self.authorizer, subject, &path).await?;
        let read = tokio::task::spawn_blocking(move || files.read(&path, Some(offset), length));
        Ok(read.await.expect("file access does not panic")?)
    }
}

impl VersionInfo {
    /// As GET_VERSION has it.
    pub fn to_v1(&self) -> v1::VersionInfo {
        v1::VersionInfo {
            version: self.version.clone(),
            build_date: Some(self.build_date.clone()),
            build_time: Some(self.build_time),
            build_user: Some(self.build_user.clone()),
            git_sha: self.git_sha.clone(),
            git_branch: None,
            git_tag: self.git_tag.clone(),
        }
    }
}

impl FileInfo {
    fn into_v1(self) -> v1::FileInfo {
        v1::FileInfo {
            path: self.path,
            nlink: i32::try_from(self.nlink).ok(),
            size: Some(self.size),
            mtime: Some(v1::TimeInfo {
                nanoseconds: self.mtime.as_nanos().try_into().unwrap_or(i64::MAX),
            }),
            mode: Some(self.mode),
            uid: Some(self.uid),
            gid: Some(self.gid),
        }
    }
}

/// The v1 answer; [`FileError::response`] is that of `/files`.
impl From<FileError> for Response {
    fn from(error: FileError) -> Response {
        match error {
            FileError::Invalid(text) => Response::bad_request(text),
            FileError::NotFound => Response::text(StatusCode::NOT_FOUND, ""),
            FileError::Io(text) => Response::text(StatusCode::INTERNAL_SERVER_ERROR, text),
        }
    }
}
