package sessions

const sysMemfdCreate = 279
