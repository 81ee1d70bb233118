//! Archives and folders of images: `docker save`'s, OCI's, `dir:`, ACI; read and written.
