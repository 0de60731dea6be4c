;; Has a hundred memories: each reserves gigabytes of addresses.
;;
;; Must come of it: refused at load.
;;@ repeat 99 (memory 1)
