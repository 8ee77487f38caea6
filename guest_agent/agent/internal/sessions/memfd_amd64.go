package sessions

const sysMemfdCreate = 319
