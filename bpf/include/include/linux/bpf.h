/* Empty: bcc's own copy or nothing of it is used. */
