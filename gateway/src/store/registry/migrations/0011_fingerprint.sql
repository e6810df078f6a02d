-- Over DTLS a device gives no name with its certificate: it is found by that alone.
CREATE INDEX device_fingerprint_by_value ON device_fingerprint (fingerprint);
